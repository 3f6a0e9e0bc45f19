"""What is in a weights file, and how it gets into a network."""
