"""The CogVideoX video autoencoder (diffusers' `AutoencoderKLCogVideoX`), streamed in time.

Pixels are (batch, 3, frames, height, width) in [-1, 1]; latents (batch, 16, latent frames,
height / 8, width / 8), scaled as the transformers expect them.
"""

import re
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import save_file
from torch import Tensor

from .config import SPACE_COMPRESSION
from .lean_vae import make_lean
from .memory import steady_memory
from .noise import Stream

LATENT_SCALE = 0.7
TILE_UNITS = 4
"""A tile is as many of its overlaps wide."""
MOST_TILES = 8


RELEASED = {
    "block_out_channels": (128, 256, 256, 512),
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "layers_per_block": 3,
    "latent_channels": 16,
}
"""Sizes of the released autoencoder."""


def autoencoder(**config) -> AutoencoderKLCogVideoX:
    """diffusers' autoencoder for inference, with layers that keep less."""
    return make_lean(AutoencoderKLCogVideoX(**config))


def encode(vae: AutoencoderKLCogVideoX, pixels: Tensor, noise: Stream) -> Tensor:
    """A sample of the posterior of `pixels`, float32; draws once."""
    with steady_memory():
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        mean, std = posterior.mean.float(), posterior.std.float()
    return LATENT_SCALE * (mean + std * noise.normal(*mean.shape).to(mean))


def decode(vae: AutoencoderKLCogVideoX, latents: Tensor, tiles: int = 1) -> Iterator[Tensor]:
    """Pixels of `latents`, a few frames at a time: 9 first, then 8, for 13 latent frames.

    The chunks are diffusers' own: group norms look at one chunk, so other chunks would give
    other numbers. So do more than one of `tiles` a side, which overlap and take less memory; then
    all frames come at once.
    """
    latents = latents.to(vae.dtype) / LATENT_SCALE
    if tiles > 1:
        yield _decode_tiled(vae, latents, tiles)
        return
    chunk = vae.num_latent_frames_batch_size
    first = chunk + latents.shape[2] % chunk
    cache = None
    with steady_memory():
        for part in (latents[:, :, :first], *latents[:, :, first:].split(chunk, dim=2)):
            pixels, cache = vae.decoder(part, conv_cache=cache)
            yield pixels.float()


def _decode_tiled(vae: AutoencoderKLCogVideoX, latents: Tensor, tiles: int) -> Tensor:
    height, width = (SPACE_COMPRESSION * tile_side(side, tiles) for side in latents.shape[-2:])
    overlap = 1 / TILE_UNITS
    vae.enable_tiling(height, width, overlap, overlap)
    try:
        with steady_memory():
            return vae.tiled_decode(latents).sample.float()
    finally:
        vae.disable_tiling()


def tile_side(side: int, tiles: int) -> int:
    """The side of each of `tiles` that cover `side` latents and overlap by a quarter."""
    return TILE_UNITS * ceil(side / ((TILE_UNITS - 1) * tiles))


def save_latent(file: Path, latents: Tensor) -> None:
    """Latents as ComfyUI's Load Latent reads them."""
    tensor = (latents / LATENT_SCALE).float().contiguous().cpu()
    save_file({"latent_tensor": tensor, "latent_format_version_0": torch.tensor([])}, file)


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """Arguments of `AutoencoderKLCogVideoX` for the parameters of these (diffusers) names."""
    levels = 1 + max(int(name.split(".")[2]) for name in shapes if "encoder.down_blocks." in name)
    widths = [
        shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.conv.weight"][0] for i in range(levels)
    ]
    resnets = {
        name.split(".")[4] for name in shapes if name.startswith("encoder.down_blocks.0.res")
    }
    return {
        "block_out_channels": tuple(widths),
        "down_block_types": ("CogVideoXDownBlock3D",) * levels,
        "up_block_types": ("CogVideoXUpBlock3D",) * levels,
        "layers_per_block": len(resnets),
        "latent_channels": shapes["decoder.conv_in.conv.weight"][1],
    }


def to_diffusers_names(names: list[str]) -> dict[str, str]:
    """Published name to diffusers' name, for the tensors of the autoencoder among `names`.

    Names that are diffusers' already stay. A published checkpoint also holds training losses,
    which are left out.
    """
    ours = [name for name in names if name.startswith(("encoder.", "decoder."))]
    levels = 1 + max(
        (int(m[1]) for name in ours if (m := re.match(r"decoder\.up\.(\d+)", name))), default=0
    )

    def rename(name: str) -> str:
        name = re.sub(r"\.mid\.block_(\d)", lambda m: f".mid_block.resnets.{int(m[1]) - 1}", name)
        name = re.sub(r"\.down\.(\d+)\.block", r".down_blocks.\1.resnets", name)
        name = re.sub(r"\.down\.(\d+)\.downsample", r".down_blocks.\1.downsamplers.0", name)
        name = re.sub(r"\.up\.(\d+)\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.", name)
        name = re.sub(r"(up_blocks\.\d+)\.block", r"\1.resnets", name)
        name = re.sub(r"(up_blocks\.\d+)\.upsample\b", r"\1.upsamplers.0", name)
        return name.replace("nin_shortcut", "conv_shortcut")

    return {name: rename(name) for name in ours}
