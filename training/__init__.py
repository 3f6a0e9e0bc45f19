"""Training a small talking-head model from scratch."""
