"""The networks of the model: the denoiser, the reference network and the projectors."""
