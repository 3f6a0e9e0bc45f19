"""Motion frames: what a segment takes over from the one before."""

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
    """The motion channels of a segment, (1, 16, 13, height / 8, width / 8).

    `portrait` (1, 3, height, width) is the canvas portrait and `motion_frames`
    (1, 3, 2, height, width) the last frames of the segment before, both in [-1, 1]. A tenth of
    the pixel positions of the motion frames is dropped; portrait and motion frames are encoded
    together to the first latent frame, and the others are zero.

    Draws a uniform (height, width) mask, then the posterior noise.
    """
    kept = noise.uniform(*portrait.shape[-2:]) >= DROPPED_PIXELS
    frames = torch.cat([portrait[:, :, None].to(motion_frames), motion_frames], dim=2)
    frames[:, :, 1:] *= kept.to(frames)
    return F.pad(encode(vae, frames, noise), (0, 0, 0, 0, 0, LATENT_FRAMES - 1))
