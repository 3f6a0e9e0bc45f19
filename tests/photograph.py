"""A face that nobody drew."""

import skimage.data
import torch
from torch import Tensor


def astronaut() -> Tensor:
    """scikit-image's picture of Eileen Collins (NASA, public domain), (3, 512, 512)."""
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 255
