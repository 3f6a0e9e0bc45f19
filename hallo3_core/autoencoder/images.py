"""Decodes latents to pictures, in more tiles if memory runs out."""

import logging

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..network.config import TIME_COMPRESSION
from .vae import MOST_TILES, TILE_UNITS, decode

logger = logging.getLogger(__name__)


def decode_images(
    vae: AutoencoderKLCogVideoX, latents: Tensor, count: int, tiles: int = 1
) -> Tensor:
    """Decode the first `count` frames of `latents`, (count, height, width, 3) in [0, 1].

    `latents` are on any device. Whole chunks of them that come after those frames are not decoded.
    The frames are float32 on the CPU. If the device runs out of memory, decodes again in more and
    smaller tiles. Raises `torch.OutOfMemoryError` if even the smallest tiles do not fit.
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
    chunk, latent_frames = vae.num_latent_frames_batch_size, latents.shape[2]
    # the first of an odd number is in a chunk with the next two
    spare = TIME_COMPRESSION * (latent_frames - 1) + 1 - max(count, 2)
    needed = latents[:, :, : latent_frames - spare // (TIME_COMPRESSION * chunk) * chunk]
    chunks = [
        (pixels[0].cpu().permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1)
        for pixels in decode(vae, needed, tiles)
    ]
    return torch.cat(chunks)[:count]
