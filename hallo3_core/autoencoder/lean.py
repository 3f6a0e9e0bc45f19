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

VALUES_AT_ONCE = 2**26
"""Values that a convolution processes at a time. It processes at least one frame."""


class CausalConv(nn.Module):
    """A causal convolution, computed for a few frames at a time.

    If `overwrites` is set, it may write the result over its input.
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
            conv_cache = torch.cat([inputs[:, :, :1]] * self.time_pad, dim=2)
        step = max(VALUES_AT_ONCE * frames // inputs.numel(), 1)
        result = inputs
        if not self.overwrites and step < frames:
            batch, _, *size = inputs.shape
            result = inputs.new_empty(batch, self.conv.out_channels, *size)
        for start in range(0, frames, step):
            now = slice(start, start + step)
            window = torch.cat([conv_cache, inputs[:, :, now]], dim=2)
            conv_cache.copy_(window[:, :, -self.time_pad :])
            if step >= frames:
                return convolve(self.conv, window), conv_cache
            result[:, :, now] = convolve(self.conv, window)
            del window  # frees it before the next one is made
        return result, conv_cache


def convolve(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """Apply `conv` to x. Float32 on a CPU always uses oneDNN, with the channels last.

    torch does not use oneDNN for small inputs, and its other kernel is ten times slower. With the
    channels last, narrow convolutions take 0.6 of the time.
    """
    if not suits_onednn(x):
        return conv(x)
    padding = [int(side) for side in conv.padding]
    sizes = (padding, conv.stride, conv.dilation)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    return torch.mkldnn_convolution(x, conv.weight, conv.bias, *sizes, conv.groups)


def suits_onednn(x: Tensor) -> bool:
    """Whether oneDNN can convolve x."""
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return on_cpu and torch.backends.mkldnn.is_available()


class Shortcut(nn.Conv3d):
    """Added to the class of a resnet's shortcut, so that oneDNN convolves it where it can."""

    def forward(self, inputs: Tensor) -> Tensor:
        return convolve(self, inputs) if suits_onednn(inputs) else super().forward(inputs)


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
        repeats = (frames - alone) // max(latent_frames - alone, 1)
        # (batch, channels, frames, latent height, repeats, latent width, repeats)
        enlarged = result.unflatten(4, (zq.shape[4], -1)).unflatten(3, (zq.shape[3], -1))
        for source in range(latent_frames):
            start = source if source < alone else alone + repeats * (source - alone)
            now = slice(start, start + (1 if source < alone else repeats))
            enlarged[:, :, now] *= scale[:, :, source, None, :, None, :, None]
            enlarged[:, :, now] += shift[:, :, source, None, :, None, :, None]
        return result, None


class Upsample(nn.Module):
    """Enlarges frame by frame. A frame that is repeated in time is convolved only once."""

    conv: nn.Conv2d
    compress_time: bool

    def forward(self, inputs: Tensor) -> Tensor:
        frames, alone = inputs.shape[2], inputs.shape[2] % 2
        repeats = 2 if self.compress_time else 1
        enlarged = []
        for i in range(frames):
            frame = self.conv(F.interpolate(inputs[:, :, i], scale_factor=2.0))
            enlarged += [frame[:, :, None]] * (1 if i < alone else repeats)
        return torch.cat(enlarged, dim=2)


class Ends(nn.Module):
    """Added to the classes of encoder and decoder. Their results have torch's usual layout."""

    def forward(self, *inputs, **options) -> tuple[Tensor, dict]:
        result, cache = super().forward(*inputs, **options)
        return result.contiguous(), cache


LEAN = {
    "CogVideoXCausalConv3d": CausalConv,
    "CogVideoXSpatialNorm3D": SpatialNorm,
    "CogVideoXUpsample3D": Upsample,
}
"""Names of diffusers' layers and the classes that replace them. These add no parameters."""
ENDS = "CogVideoXEncoder3D", "CogVideoXDecoder3D"

SMALL = {
    "block_out_channels": (8, 8, 8, 16),
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
            if shortcut := getattr(module, "conv_shortcut", None):
                extend(shortcut, Shortcut)
        if name in ENDS:
            extend(module, Ends)


def extend(module: nn.Module, kind: type[nn.Module]) -> None:
    """Let the methods of `kind` come before those of the module's own class."""
    module.__class__ = type(kind.__name__, (kind, type(module)), {})


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
