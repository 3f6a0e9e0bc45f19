"""The CogVideoX video autoencoder (diffusers' `AutoencoderKLCogVideoX`), decoded in chunks.

Pixels are (batch, 3, frames, height, width) in [-1, 1]. Latents are (batch, 16, latent frames,
height / 8, width / 8), scaled for the transformers.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import save_file
from torch import Tensor

from ..allocator import steady_memory
from ..network.config import SPACE_COMPRESSION, TIME_COMPRESSION, Size
from ..noise import Stream
from .lean import make_lean
from .new_frames import write_new_frames
from .tiles import in_tiles, tiling

LATENT_SCALE = 0.7

RELEASED = {
    "block_out_channels": (128, 256, 256, 512),
    "layers_per_block": 3,
    "latent_channels": 16,
}
"""Sizes of the released autoencoder. It has four levels, as diffusers makes by default."""


def autoencoder(**config) -> AutoencoderKLCogVideoX:
    """Make diffusers' autoencoder for inference, with layers that take less memory."""
    return make_lean(AutoencoderKLCogVideoX(**config))


def encode(vae: AutoencoderKLCogVideoX, pixels: Tensor, noise: Stream) -> Tensor:
    """Encode `pixels` to a sample of the posterior: scaled latents, float32 on the CPU.

    Draws the posterior noise once.
    """
    with steady_memory():
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        mean, std = posterior.mean.float().cpu(), posterior.std.float().cpu()
    return LATENT_SCALE * (mean + std * noise.normal(*mean.shape))


def decode_chunks(vae: AutoencoderKLCogVideoX, latents: Tensor) -> Iterator[Tensor]:
    """Yield the pixels of unscaled latents, float32, chunk by chunk."""
    cache = None
    for span in chunk_spans(vae, latents.shape[2]):
        with steady_memory():
            pixels, cache = vae.decoder(latents[:, :, span], conv_cache=cache)
        yield pixels.float()


def chunk_spans(vae: AutoencoderKLCogVideoX, frames: int) -> list[slice]:
    """The chunks of diffusers. Other chunks would change the group norms' results."""
    chunk = vae.num_latent_frames_batch_size
    ends = range(min(chunk + frames % chunk, frames), frames + 1, chunk)
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def frames_of_chunk(latent_frames: int) -> int:
    """How many frames a chunk becomes. The first of an odd number is one frame."""
    return TIME_COMPRESSION * latent_frames - (TIME_COMPRESSION - 1) * (latent_frames % 2)


Chunks = Callable[[AutoencoderKLCogVideoX, Tensor], Iterator[Tensor]]
"""Decodes unscaled latents chunk by chunk, such as `decode_chunks`."""


def decode(
    vae: AutoencoderKLCogVideoX, latents: Tensor, tiles: int = 1, chunks: Chunks = decode_chunks
) -> Iterator[Tensor]:
    """Yield the pixels of `latents`, float32, in chunks: 9 frames, then 8, for 13 latent frames.

    If `tiles` is above 1, each side is cut into `tiles` overlapping tiles. This takes less memory,
    changes the pixels slightly, and yields all frames at once.
    """
    latents = latents.to(vae.dtype) / LATENT_SCALE
    if tiles == 1:
        yield from chunks(vae, latents)
        return
    yield decode_in_tiles(vae, latents, *tiling(latents.shape[-2:], tiles), chunks)


def decode_in_tiles(
    vae: AutoencoderKLCogVideoX,
    latents: Tensor,
    sides: Size,
    overlaps: Size,
    chunks: Chunks = decode_chunks,
) -> Tensor:
    """Decode unscaled latents to pixels, float32, in tiles.

    `sides` and `overlaps` (height, width) are in latents.
    """

    def work(tile: Tensor) -> Tensor:
        return torch.cat(list(chunks(vae, tile)), dim=2)

    return in_tiles(work, latents, (1, SPACE_COMPRESSION), sides, overlaps)


def encode_in_tiles(
    vae: AutoencoderKLCogVideoX, pixels: Tensor, sides: Size, overlaps: Size
) -> Tensor:
    """Encode `pixels` to the mean of the posterior, unscaled, float32, in tiles.

    `sides` and `overlaps` (height, width) are in latents.
    """

    def work(tile: Tensor) -> Tensor:
        with steady_memory():
            return vae.encode(tile).latent_dist.mean.float()

    return in_tiles(work, pixels, (SPACE_COMPRESSION, 1), sides, overlaps)


def save_latent(file: Path, latents: Tensor, new_frames: int) -> None:
    """Save the latents of a segment in a file for ComfyUI's Load Latent.

    The tensor in the file is unscaled, float32, and also stores the number of new frames.
    """
    tensor = write_new_frames((latents / LATENT_SCALE).float().cpu(), new_frames)
    save_file({"latent_tensor": tensor, "latent_format_version_0": torch.tensor([])}, file)


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """Derive the arguments of `AutoencoderKLCogVideoX` from parameter shapes (diffusers' names).

    The parameters do not tell the number of groups of the norms. It is 32 in the released
    autoencoder, and 8 in the built-in one, which is narrower.
    """
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
        "norm_num_groups": 32 if widths[0] % 32 == 0 else 8,
    }


def to_diffusers_names(names: list[str]) -> dict[str, str]:
    """Map the autoencoder's tensor names among `names` to diffusers' names.

    `names` are published names or diffusers' names. The prefix `vae.`, which VAESave once wrote,
    is removed. Other tensors, such as the training losses in the published checkpoint, are left
    out.
    """
    ours = [name for name in names if re.match(r"(vae\.)?(encoder|decoder)\.", name)]
    levels = 1 + max(
        (int(m[1]) for name in ours if (m := re.match(r"decoder\.up\.(\d+)", name))), default=0
    )

    def rename(name: str) -> str:
        name = name.removeprefix("vae.")
        name = re.sub(r"\.mid\.block_(\d)", lambda m: f".mid_block.resnets.{int(m[1]) - 1}", name)
        name = re.sub(r"\.down\.(\d+)\.block", r".down_blocks.\1.resnets", name)
        name = re.sub(r"\.down\.(\d+)\.downsample", r".down_blocks.\1.downsamplers.0", name)
        name = re.sub(r"\.up\.(\d+)\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.", name)
        name = re.sub(r"(up_blocks\.\d+)\.block", r"\1.resnets", name)
        name = re.sub(r"(up_blocks\.\d+)\.upsample\b", r"\1.upsamplers.0", name)
        return name.replace("nin_shortcut", "conv_shortcut")

    return {name: rename(name) for name in ours}
