"""Training: the built-in model from scratch, and fine-tuning on clips."""
