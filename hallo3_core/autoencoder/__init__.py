"""The CogVideoX autoencoder, which turns frames into latents and back."""
