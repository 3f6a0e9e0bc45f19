"""A clip: its segments one after the other, and what the user wants of them."""
