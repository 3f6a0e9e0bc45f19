"""From noise to latents, segment by segment."""
