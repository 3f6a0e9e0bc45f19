"""Samples the latents of a segment from noise."""
