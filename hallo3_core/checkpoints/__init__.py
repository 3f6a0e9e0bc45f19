"""Weights files: reading, recognising and writing them, and loading them into networks."""
