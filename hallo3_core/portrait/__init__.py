"""Turns a picture and its face into an Identity."""
