"""The CogVideoX video autoencoder (diffusers' `AutoencoderKLCogVideoX`), streamed in time.

Pixels are (batch, 3, frames, height, width) in [-1, 1]; latents (batch, 16, latent frames,
height / 8, width / 8), scaled as the transformers expect them.
"""

import re
from collections.abc import Iterator, Mapping

from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d
from torch import Tensor

from .memory import steady_memory
from .noise import Stream

LATENT_SCALE = 0.7


def autoencoder(**config) -> AutoencoderKLCogVideoX:
    """diffusers' autoencoder, without the copies that its 1 x 1 x 1 convolutions keep for nothing.

    A causal convolution keeps the end of its input for the next chunk; one that looks at a single
    frame needs none, but in diffusers keeps all of it, at every norm of the decoder.
    """
    vae = AutoencoderKLCogVideoX(**config)
    for module in vae.modules():
        if isinstance(module, CogVideoXCausalConv3d) and module.time_kernel_size == 1:
            module.pad_mode = "replicate"  # pads by nothing and keeps nothing
    return vae


def encode(vae: AutoencoderKLCogVideoX, pixels: Tensor, noise: Stream) -> Tensor:
    """A sample of the posterior of `pixels`, float32; draws once."""
    with steady_memory():
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        mean, std = posterior.mean.float(), posterior.std.float()
    return LATENT_SCALE * (mean + std * noise.normal(*mean.shape).to(mean))


def decode(vae: AutoencoderKLCogVideoX, latents: Tensor) -> Iterator[Tensor]:
    """Pixels of `latents`, a few frames at a time: 9 first, then 8, for 13 latent frames.

    The chunks are diffusers' own: group norms look at one chunk, so other chunks would give
    other numbers.
    """
    latents = latents.to(vae.dtype) / LATENT_SCALE
    chunk = vae.num_latent_frames_batch_size
    first = chunk + latents.shape[2] % chunk
    cache = None
    with steady_memory():
        for part in (latents[:, :, :first], *latents[:, :, first:].split(chunk, dim=2)):
            pixels, cache = vae.decoder(part, conv_cache=cache)
            yield pixels.float()


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
