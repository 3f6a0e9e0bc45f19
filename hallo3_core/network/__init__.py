"""What the model computes: the denoiser, the reference network and the projectors."""
