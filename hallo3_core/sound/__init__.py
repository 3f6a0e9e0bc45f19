"""Sound from files and from other programs, at any rate and with any channels."""
