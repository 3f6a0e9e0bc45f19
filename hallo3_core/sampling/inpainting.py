"""Sampling that makes a part of given latents again. The rest stays."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Source:
    """The latents that sampling starts from, and what it may change of them.

    - `latents` (1, 16, 13, height / 8, width / 8), float32.
    - `mask` is 1 where they are made again and 0 where they stay. Its shape broadcasts to theirs.
    - `strength`, above 0 and up to 1, is the share of the schedule that is sampled. At 1, sampling
      starts from pure noise, and at less, from the latents with less noise.

    The rule is that of ComfyUI's noise mask. In every step the denoiser sees the given latents
    outside the mask, at the noise level of the step. Its estimate there is the given latents.
    """

    latents: Tensor
    mask: Tensor
    strength: float = 1.0

    def to(self, device: torch.device) -> "Source":
        return Source(self.latents.to(device), self.mask.to(device), self.strength)

    def noised(self, noise: Tensor, alpha: Tensor) -> Tensor:
        """The latents with `noise` of the same shape, at the noise level of `alpha`."""
        return alpha.float() * self.latents + (1 - alpha**2).sqrt().float() * noise

    def around(self, x: Tensor, noised: Tensor) -> Tensor:
        """What the denoiser sees: `x` in the mask, and the `noised` latents around it."""
        return torch.lerp(noised, x, self.mask)

    def keep(self, x0: Tensor) -> Tensor:
        """The denoised estimate `x0` in the mask, and the given latents around it, to the bit."""
        return torch.lerp(self.latents, x0, self.mask)
