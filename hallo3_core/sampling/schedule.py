"""The noise schedule.

`alpha` is sqrt(alpha-bar) and `sigma` is sqrt(1 - alpha-bar): x = alpha x0 + sigma noise.
"""

from dataclasses import dataclass
from functools import cache
from math import floor

import torch
from torch import Tensor

from ..errors import InputError

TRAINING_STEPS = 1000


@cache
def _training_alphas_squared() -> Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAINING_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def _zero_terminal_snr(alphas_squared: Tensor) -> Tensor:
    """Rescale descending alphas so that the last is zero and the first stays the same.

    Takes alpha**2, and returns alpha.
    """
    alphas = alphas_squared.sqrt()
    return (alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])


@cache
def denoiser_alphas() -> Tensor:
    """alpha of each of the 1000 training steps, (1000,) float64, with zero terminal SNR."""
    return _zero_terminal_snr(_training_alphas_squared())


def spaced(steps: int, strength: float = 1.0) -> Tensor:
    """Evenly spaced timesteps, (steps,) int64, the noisiest first.

    With a `strength` below 1, they are that share of the schedule, its end, and only that share of
    the steps. There is at least one step. Raises `InputError` if the number of steps or the
    strength is out of range.
    """
    if not 1 <= steps < TRAINING_STEPS:
        raise InputError(
            f"The number of steps is {steps}: choose a number from 1 to {TRAINING_STEPS - 1}."
        )
    check_strength(strength)
    first, count = floor((TRAINING_STEPS - 1) * strength), max(round(steps * strength), 1)
    return torch.tensor([first * (count - i) // count for i in range(count)])


def check_strength(strength: float) -> None:
    """Raise `InputError` if a strength is out of range."""
    if not 0 < strength <= 1:
        raise InputError(f"The strength is {strength:g}: choose more than 0, and 1 at most.")


@dataclass(frozen=True)
class Schedule:
    """The timesteps and alphas from noise to the clean latents.

    `timesteps` (steps,) int64 are inputs of the denoiser. `alphas` (steps + 1,) float64 are used in
    the updates between steps. The first is 0 for pure noise, and the last is 1.
    """

    timesteps: Tensor
    alphas: Tensor

    @classmethod
    def published(cls, steps: int) -> "Schedule":
        """The published schedule. The selected steps alone are rescaled to zero terminal SNR."""
        return cls.over(spaced(steps))

    @classmethod
    def plain(cls, timesteps: Tensor) -> "Schedule":
        """The denoiser's own alphas at descending timesteps. Distillation trains with these.

        So a schedule with more steps passes through the same points.
        """
        end = torch.ones(1, dtype=torch.float64)
        return cls(timesteps, torch.cat([denoiser_alphas()[timesteps], end]))

    @classmethod
    def over(cls, timesteps: Tensor) -> "Schedule":
        """The schedule over descending timesteps.

        If it starts at pure noise, the selected steps are rescaled to zero terminal SNR, as
        published. If it starts later or has one step, it uses the denoiser's own alphas.
        """
        if len(timesteps) == 1 or timesteps[0] < TRAINING_STEPS - 1:
            return cls.plain(timesteps)
        alphas = _zero_terminal_snr(_training_alphas_squared()[timesteps.flip(0)]).flip(0)
        return cls(timesteps, torch.cat([alphas, torch.ones(1, dtype=torch.float64)]))
