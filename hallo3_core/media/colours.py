"""Matches the colours of pictures to those of another picture."""

import numpy as np
import torch
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor

ALMOST_NONE = 0.1
"""The least spread of a Lab channel that is stretched. Below it, the picture has one colour."""


def matched(frames: Tensor, wanted: Tensor, strength: float = 1.0) -> Tensor:
    """Bring `frames` to the colours of `wanted`, both (frames, height, width, 3) in [0, 1].

    In each channel of Lab, the mean and the spread of all pixels become those of `wanted`. This is
    the colour transfer of Reinhard et al. (2001). `strength` is 0 for no change to 1. The result is
    float32.
    """
    if not strength:
        return frames
    found, target = (rgb2lab(pictures.float().cpu().numpy()) for pictures in (frames, wanted))
    spread, wanted_spread = (lab.std(axis=(0, 1, 2)) for lab in (found, target))
    stretch = np.where(spread < ALMOST_NONE, 1, wanted_spread / np.maximum(spread, ALMOST_NONE))
    moved = (found - found.mean((0, 1, 2))) * stretch + target.mean((0, 1, 2))
    pixels = torch.from_numpy(lab2rgb(moved)).to(frames.device, torch.float32)
    return torch.lerp(frames.float(), pixels, strength)
