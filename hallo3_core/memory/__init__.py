"""Where networks are, and how much memory a video needs."""
