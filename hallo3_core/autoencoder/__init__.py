"""Frames to latents and back: the CogVideoX autoencoder."""
