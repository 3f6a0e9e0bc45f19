"""A sound to a Speech."""
