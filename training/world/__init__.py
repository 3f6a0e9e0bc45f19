"""The drawn world: people who talk, made from seeds, with exact ground truth."""
