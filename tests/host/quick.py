"""Pictures in the place of decoding, for tests of everything else in Animate Portrait."""

import inspect
from collections import Counter

import pytest
import torch
from comfyui import Host


def quick_pictures(samples: torch.Tensor, frames: int) -> torch.Tensor:
    """Pictures that depend on the latents, (frames, height, width, 3)."""
    small = samples[0, :3].movedim(0, -1).sigmoid()
    large = small.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    return large.repeat_interleave(4, dim=0)[:frames]


def animator_of(host: Host) -> type:
    """`NodeAnimator` of the pack that the host has loaded."""
    animate = inspect.getmodule(host.nodes.NODE_CLASS_MAPPINGS["Hallo3AnimatePortrait"])
    return animate.NodeAnimator


def decode_quickly(host: Host, patch: pytest.MonkeyPatch, calls: Counter) -> None:
    """Make Animate Portrait decode quickly from now on, and count the whole segments."""

    def decode(vae, samples: torch.Tensor, frames: int) -> torch.Tensor:
        calls["decoded"] += frames > 9
        return quick_pictures(samples, frames)

    patch.setattr(inspect.getmodule(animator_of(host)), "decode_latent", decode)
