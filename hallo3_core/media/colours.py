"""Matches the colours of pictures to those of other pictures (Reinhard et al., 2001)."""

import torch
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor

FLAT, FLAT_LAB = 1 / 255, 0.1
"""A channel with a smaller spread, in RGB or in Lab, is not stretched: the picture is flat."""


def matched(
    pictures: Tensor, wanted: Tensor, weight: Tensor | None = None, flat: float = FLAT
) -> Tensor:
    """Give each channel of `pictures` the mean and the spread that it has in `wanted`.

    Both are (..., channels) in any colour space. `weight` (..., 1) says how much each pixel counts;
    without it, all count alike. A channel with a spread below `flat` is moved, but not stretched.
    The result is not clamped.
    """
    (mean, spread), (wanted_mean, wanted_spread) = (
        _moments(values, weight) for values in (pictures, wanted)
    )
    stretch = torch.where(spread < flat, 1, wanted_spread / spread)
    return (pictures - mean) * stretch + wanted_mean


def _moments(values: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each channel of `values` (..., channels)."""
    values = values.flatten(0, -2)
    share = values.new_ones(len(values), 1) if weight is None else weight.flatten(0, -2)
    share = share / share.sum().clamp(min=1e-6)
    mean = (values * share).sum(0)
    return mean, ((values - mean).square() * share).sum(0).sqrt()


def matched_in_lab(frames: Tensor, wanted: Tensor) -> Tensor:
    """Match the pixels of all `frames` to those of `wanted`, in Lab: there lightness is apart.

    Both are (frames, height, width, 3) in [0, 1], and so is the result, float32.
    """
    found, target = (
        torch.from_numpy(rgb2lab(pictures.float().cpu().numpy())) for pictures in (frames, wanted)
    )
    pixels = lab2rgb(matched(found, target, flat=FLAT_LAB).numpy())
    return torch.from_numpy(pixels).to(frames.device, torch.float32)
