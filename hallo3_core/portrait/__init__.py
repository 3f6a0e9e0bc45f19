"""A picture and its face to an Identity."""
