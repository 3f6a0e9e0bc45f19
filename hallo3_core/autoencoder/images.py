"""Encodes pictures to latents. Decodes latents to pictures, in more tiles if memory runs out."""

import logging

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..noise import Stream
from .vae import MOST_TILES, TILE_UNITS, decode, encode

logger = logging.getLogger(__name__)


def encode_images(vae: AutoencoderKLCogVideoX, frames: Tensor, noise: Stream) -> Tensor:
    """Encode `frames` (frames, height, width, 3) in [0, 1]. See `encode`."""
    return encode(vae, frames.permute(3, 0, 1, 2)[None] * 2 - 1, noise)


def decode_images(
    vae: AutoencoderKLCogVideoX, latents: Tensor, count: int, tiles: int = 1
) -> Tensor:
    """Decode the first `count` frames of `latents`, (count, height, width, 3) in [0, 1].

    `latents` are on any device. The frames are float32 on the CPU. If the device runs out of
    memory, decodes again in more and smaller tiles. Raises `torch.OutOfMemoryError` if even the
    smallest tiles do not fit.
    """
    side, latents = min(latents.shape[-2:]), latents.to(vae.device)
    while True:
        try:
            return _decode_images(vae, latents, count, tiles)
        except torch.OutOfMemoryError:
            tiles += 1
            if tiles > min(MOST_TILES, side // TILE_UNITS):
                raise
            logger.warning("Decoding ran out of memory: trying %d x %d tiles.", tiles, tiles)


def _decode_images(vae: AutoencoderKLCogVideoX, latents: Tensor, count: int, tiles: int) -> Tensor:
    chunks, decoded = [], 0
    for pixels in decode(vae, latents, tiles):
        chunks.append((pixels[0].cpu().permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1))
        decoded += len(chunks[-1])
        if decoded >= count:
            break
    return torch.cat(chunks)[:count]
