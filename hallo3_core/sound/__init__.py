"""Sound from files and from other programs, with any sample rate and any number of channels."""
