"""Turns a sound into a Speech."""
