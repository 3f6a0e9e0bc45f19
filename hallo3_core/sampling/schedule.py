"""The noise schedule.

`alpha` is sqrt(alpha-bar) and `sigma` is sqrt(1 - alpha-bar): x = alpha x0 + sigma noise.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..errors import InputError

TRAINING_STEPS = 1000


@cache
def _training_alphas_squared() -> Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAINING_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def _zero_terminal_snr(alphas_squared: Tensor) -> Tensor:
    """Stretch descending alphas so that the last is zero and the first stays; returns alphas."""
    alphas = alphas_squared.sqrt()
    return (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])


@cache
def denoiser_alphas() -> Tensor:
    """alpha of each of the 1000 training steps, with zero terminal SNR."""
    return _zero_terminal_snr(_training_alphas_squared())


@dataclass(frozen=True)
class Schedule:
    """Timesteps and alphas from pure noise to the clean latents.

    `timesteps` (steps,) int64 are what the denoiser is told; `alphas` (steps + 1,) float64 are
    what the update between steps uses, 0 first and 1 last.
    """

    timesteps: Tensor
    alphas: Tensor

    @classmethod
    def published(cls, steps: int) -> "Schedule":
        """The published schedule: zero terminal SNR over the selected steps alone."""
        if not 1 <= steps < TRAINING_STEPS:
            raise InputError(
                f"The number of steps is {steps}: choose one from 1 to {TRAINING_STEPS - 1}."
            )
        last = TRAINING_STEPS - 1
        return cls.over(torch.tensor([last * (steps - i) // steps for i in range(steps)]))

    @classmethod
    def over(cls, timesteps: Tensor) -> "Schedule":
        """The schedule over descending timesteps.

        From pure noise on, the rescaling to zero terminal SNR is done on the selected steps, as
        published; a schedule that starts later uses the denoiser's own alphas.
        """
        if len(timesteps) == 1 or timesteps[0] < TRAINING_STEPS - 1:
            alphas = denoiser_alphas()[timesteps]
        else:
            alphas = _zero_terminal_snr(_training_alphas_squared()[timesteps.flip(0)]).flip(0)
        return cls(timesteps, torch.cat([alphas, torch.ones(1, dtype=torch.float64)]))
