"""Finished segments, kept on disk."""
