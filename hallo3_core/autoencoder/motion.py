"""Motion frames: the last frames of a segment, which the next segment continues."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..network.config import LATENT_FRAMES
from ..noise import Stream
from .vae import encode

DROPPED_PIXELS = 0.1


def motion_latents(
    vae: AutoencoderKLCogVideoX, portrait: Tensor, motion_frames: Tensor, noise: Stream
) -> Tensor:
    """The motion channels of a segment, (1, 16, 13, height / 8, width / 8), float32.

    `portrait` (1, 3, height, width) is the portrait on the canvas. `motion_frames`
    (1, 3, 2, height, width) are the last frames of the segment before. Both are in [-1, 1].
    A tenth of the pixel positions of the motion frames is set to zero. The portrait and the motion
    frames are encoded together into the first latent frame. The other latent frames are zero.

    Draws a uniform (height, width) mask, then the posterior noise.
    """
    kept = noise.uniform(*portrait.shape[-2:]) >= DROPPED_PIXELS
    frames = torch.cat([portrait[:, :, None].to(motion_frames), motion_frames], dim=2)
    frames[:, :, 1:] *= kept.to(frames)
    return fill_segment(encode(vae, frames, noise))


def motion_after(
    vae: AutoencoderKLCogVideoX, portrait: Tensor, frames: Tensor, noise: Stream
) -> Tensor:
    """Return `motion_latents` for two canvas `frames`, (2, height, width, 3) in [0, 1]."""
    pixels = frames.permute(3, 0, 1, 2)[None] * 2 - 1
    return motion_latents(vae, portrait, pixels, noise)


def fill_segment(motion: Tensor) -> Tensor:
    """Pad motion latents with zero frames to the 13 latent frames of a segment."""
    return F.pad(motion, (0, 0, 0, 0, 0, LATENT_FRAMES - motion.shape[2]))
