"""Encodes pictures to latents and decodes latents to pictures. In tiles if memory runs out."""

import logging
from collections.abc import Callable

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..network.config import SPACE_COMPRESSION, TIME_COMPRESSION
from ..noise import Stream
from .tiles import most_tiles, tiling
from .vae import LATENT_SCALE, Chunks, decode, decode_chunks, encode, encode_in_tiles

logger = logging.getLogger(__name__)


def encode_images(
    vae: AutoencoderKLCogVideoX, frames: Tensor, noise: Stream, tiles: int = 1
) -> Tensor:
    """Encode frames (frames, height, width, 3) in [0, 1] to scaled latents, float32 on the CPU.

    It is a sample of the posterior, or its mean if there are tiles. Draws the posterior noise once.
    If the device runs out of memory, encodes again in more and smaller tiles. Raises
    `torch.OutOfMemoryError` if even the smallest tiles do not fit.
    """
    pixels = frames.permute(3, 0, 1, 2)[None] * 2 - 1
    grid = [side // SPACE_COMPRESSION for side in pixels.shape[-2:]]

    def work(tiles: int) -> Tensor:
        if tiles == 1:
            return encode(vae, pixels, noise)
        there = pixels.to(vae.device, vae.dtype)
        return LATENT_SCALE * encode_in_tiles(vae, there, *tiling(grid, tiles)).cpu()

    return _in_more_tiles(work, "Encoding", most_tiles(grid), tiles)


def decode_images(
    vae: AutoencoderKLCogVideoX,
    latents: Tensor,
    count: int,
    tiles: int = 1,
    chunks: Chunks = decode_chunks,
    full: type[torch.OutOfMemoryError] = torch.OutOfMemoryError,
) -> Tensor:
    """Decode the first `count` frames of `latents`, (count, height, width, 3) in [0, 1].

    `latents` are on any device. Whole chunks of them that come after those frames are not decoded.
    The frames are float32 on the CPU. If the device runs out of memory (the error `full`), decodes
    again in more and smaller tiles. Raises `full` if even the smallest tiles do not fit.
    """
    chunk, latent_frames = vae.num_latent_frames_batch_size, latents.shape[2]
    # the first of an odd number is in a chunk with the next two
    spare = TIME_COMPRESSION * (latent_frames - 1) + 1 - max(count, 2)
    needed = latents[:, :, : latent_frames - spare // (TIME_COMPRESSION * chunk) * chunk]
    needed = needed.to(vae.device)

    def work(tiles: int) -> Tensor:
        found = [
            (pixels[0].cpu().permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1)
            for pixels in decode(vae, needed, tiles, chunks)
        ]
        return torch.cat(found)[:count]

    return _in_more_tiles(work, "Decoding", most_tiles(latents.shape[-2:]), tiles, full)


def _in_more_tiles(
    work: Callable[[int], Tensor],
    doing: str,
    most: int,
    tiles: int,
    full: type[torch.OutOfMemoryError] = torch.OutOfMemoryError,
) -> Tensor:
    """The result of `work` with so many `tiles` per side, or with up to `most` if it raises `full`.

    `doing` names the work in the warning.
    """
    while True:
        try:
            return work(tiles)
        except full:
            tiles += 1
            if tiles > most:
                raise
            logger.warning("%s ran out of memory: trying %d x %d tiles.", doing, tiles, tiles)
