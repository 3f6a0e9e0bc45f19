"""A world of our own: drawn people who talk, with exact ground truth, made from seeds."""
