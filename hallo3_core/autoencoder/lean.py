"""Layers that let diffusers' CogVideoX autoencoder run in half the memory, with the same results.

At the end of the decoder every tensor has 128 channels at full resolution, 88 MB per frame in bf16.
The number of tensors in memory therefore matters. The layers of this file replace diffusers' layers
for inference. diffusers' layers are private and may change, so a small autoencoder is tested first:
both kinds of layers must give the same results.
"""

import logging
from copy import deepcopy
from functools import cache

import diffusers
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn

logger = logging.getLogger(__name__)

WINDOW = 2**26
"""Values that a convolution processes at a time. It processes at least one frame."""


class CausalConv(nn.Module):
    """A causal convolution, computed for a few frames at a time.

    If `overwrites` is set, it writes the result over its input.
    """

    conv: nn.Conv3d
    time_pad: int
    overwrites = False

    def forward(self, inputs: Tensor, conv_cache: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the result, and the last input frames as `conv_cache` for the next chunk.

        `inputs` is (batch, channels, frames, height, width).
        """
        frames = inputs.shape[2]
        if conv_cache is None:
            conv_cache = inputs[:, :, :1].repeat(1, 1, self.time_pad, 1, 1)
        result = inputs
        if not self.overwrites:
            batch, _, *size = inputs.shape
            result = inputs.new_empty(batch, self.conv.out_channels, *size)
        step = max(WINDOW * frames // inputs.numel(), 1)
        for start in range(0, frames, step):
            now = slice(start, start + step)
            window = torch.cat([conv_cache, inputs[:, :, now]], dim=2)
            conv_cache.copy_(window[:, :, -self.time_pad :])
            result[:, :, now] = convolve(self.conv, window)
            del window  # frees it before the next one is made
        return result, conv_cache


def convolve(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """Apply `conv` to x. Float32 on a CPU always uses oneDNN.

    torch does not use oneDNN for small inputs, and its other kernel is ten times slower.
    """
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    if not (on_cpu and torch.backends.mkldnn.is_available()):
        return conv(x)
    padding = [int(side) for side in conv.padding]
    sizes = (padding, conv.stride, conv.dilation)
    return torch.mkldnn_convolution(x, conv.weight, conv.bias, *sizes, conv.groups)


class SpatialNorm(nn.Module):
    """Convolves the latents before it enlarges them, not after. This is 64 times less work."""

    norm_layer: nn.GroupNorm
    conv_y: CausalConv
    conv_b: CausalConv

    def forward(self, f: Tensor, zq: Tensor, conv_cache: None = None) -> tuple[Tensor, None]:
        result = self.norm_layer(f)
        scale, shift = (convolve(conv.conv, zq) for conv in (self.conv_y, self.conv_b))
        frames, latent_frames = f.shape[2], zq.shape[2]
        alone = frames % 2 if frames > 1 else 0  # 1 if the first frame has its own latent frame
        for i in range(frames):
            source = i
            if i >= alone:
                source = alone + (i - alone) * (latent_frames - alone) // (frames - alone)
            size = f.shape[-2:]
            result[:, :, i] *= F.interpolate(scale[:, :, source], size)
            result[:, :, i] += F.interpolate(shift[:, :, source], size)
        return result, None


class Upsample(nn.Module):
    """Enlarges frame by frame. A frame that is repeated in time is convolved only once."""

    conv: nn.Conv2d
    compress_time: bool

    def forward(self, inputs: Tensor) -> Tensor:
        batch, _, frames, height, width = inputs.shape
        alone = frames % 2
        repeats = 2 if self.compress_time else 1
        times = alone + repeats * (frames - alone)
        result = inputs.new_empty(batch, self.conv.out_channels, times, 2 * height, 2 * width)
        for i in range(frames):
            frame = self.conv(F.interpolate(inputs[:, :, i], scale_factor=2.0))
            start = i if i < alone else alone + repeats * (i - alone)
            result[:, :, start : start + (1 if i < alone else repeats)] = frame[:, :, None]
        return result


LEAN = {
    "CogVideoXCausalConv3d": CausalConv,
    "CogVideoXSpatialNorm3D": SpatialNorm,
    "CogVideoXUpsample3D": Upsample,
}
"""Names of diffusers' layers and the classes that replace them. These add no parameters."""

SMALL = {
    "block_out_channels": (8, 8, 8, 16),
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
"""Sizes of a small autoencoder that has every kind of layer and runs in milliseconds."""
TOLERANCE = 1e-5


def make_lean(vae: AutoencoderKLCogVideoX) -> AutoencoderKLCogVideoX:
    """Replace diffusers' layers of `vae` by the layers of this file, with the same weights.

    Changes nothing if the layers of the installed diffusers version are not known here.
    """
    if suits_diffusers():
        replace_layers(vae)
    return vae


def replace_layers(vae: AutoencoderKLCogVideoX) -> None:
    """Change the class of every layer that this file replaces, in place."""
    for module in vae.modules():
        name = type(module).__name__
        module.__class__ = LEAN.get(name, type(module))
        if isinstance(module, nn.SiLU):
            module.inplace = True
        if name == "CogVideoXResnetBlock3D":
            for conv in (module.conv1, module.conv2):
                conv.overwrites = conv.conv.in_channels == conv.conv.out_channels


@cache
def suits_diffusers() -> bool:
    """Whether the layers of this file and of the installed diffusers give the same results.

    Logs a warning if they do not.
    """
    try:
        suits = _agrees()
    except Exception as error:  # another diffusers may fail in any way
        logger.debug("The layers of autoencoder/lean.py cannot be used.", exc_info=error)
        suits = False
    if not suits:
        logger.warning(
            "The CogVideoX autoencoder of diffusers %s is not known here, so its own layers are "
            "used. The video is the same, but decoding takes about twice the memory that the plan "
            "says. diffusers 0.33 to 0.42 are known.",
            diffusers.__version__,
        )
    return suits


@torch.no_grad()
def _agrees() -> bool:
    """Compare a small autoencoder of random weights with and without the layers of this file.

    True if all layers are found and the results are the same. Each video has two chunks.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        theirs = AutoencoderKLCogVideoX(**SMALL)
    with torch.device("cpu"):  # the caller may have set another default device
        theirs = theirs.to_empty(device="cpu").eval()
        for parameter in theirs.parameters():
            parameter.normal_(std=0.1, generator=generator)
        lean = deepcopy(theirs)
        replace_layers(lean)
        pixels = torch.randn(1, 3, 17, 16, 16, generator=generator)
        latents = torch.randn(1, 16, 5, 2, 2, generator=generator)
        pairs = [
            (vae.encode(pixels).latent_dist.parameters, vae.decode(latents).sample)
            for vae in (lean, theirs)
        ]
    kinds = {type(module) for module in lean.modules()}
    return kinds.issuperset(LEAN.values()) and all(
        (found - expected).norm() < TOLERANCE * expected.norm()
        for found, expected in zip(*pairs, strict=True)
    )
