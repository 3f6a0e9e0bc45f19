"""Noise schedule, guidance and samplers.

`alpha` is sqrt(alpha-bar) and `sigma` is sqrt(1 - alpha-bar): x = alpha x0 + sigma noise.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .errors import InputError

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


Predict = Callable[[Tensor, Tensor], Tensor]
"""v of (latents, timestep), the timestep a scalar tensor."""


Interval = tuple[float, float]
"""Where on the way from noise (0) to the clean latents (1) a part of the steps begins and ends."""

ALWAYS: Interval = (0, 1)


def guided(
    unconditional: Predict, conditional: Predict, guidance: float, interval: Interval = ALWAYS
) -> Predict:
    """Classifier-free guidance of two predictions of v, for the steps in `interval`."""

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        with_it = conditional(x, timestep)
        if guidance == 1 or not inside(interval, timestep):
            return with_it
        without = unconditional(x, timestep)
        return without + guidance * (with_it - without)

    return predict


def guided_at_once(both: Predict, guidance: float) -> Predict:
    """The same of one prediction for two rows, the unconditional one first."""

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        without, with_it = both(torch.cat([x, x]), timestep).chunk(2)
        return without + guidance * (with_it - without)

    return predict


def inside(interval: Interval, timestep: Tensor) -> bool:
    """Whether the step at a timestep is guided."""
    start, end = interval
    return start <= 1 - int(timestep) / (TRAINING_STEPS - 1) <= end


def denoised(predict: Predict, x: Tensor, timestep: Tensor, alpha: Tensor) -> Tensor:
    """The denoised estimate, by the entry of the denoiser's table nearest to `alpha`."""
    table = denoiser_alphas()
    nearest = table[(table - alpha).abs().argmin()]
    sigma = (1 - nearest**2).sqrt()
    return nearest.float() * x - sigma.float() * predict(x, timestep)


@dataclass(frozen=True)
class Step:
    """An update from `alpha` to `next_alpha`, given the denoised estimates there and before."""

    x: Tensor
    x0: Tensor
    previous_x0: Tensor | None
    previous_alpha: Tensor | None
    alpha: Tensor
    next_alpha: Tensor

    @property
    def sigma(self) -> Tensor:
        return (1 - self.alpha**2).sqrt()

    @property
    def next_sigma(self) -> Tensor:
        return (1 - self.next_alpha**2).sqrt()

    @property
    def decay(self) -> Tensor:
        """exp(-h), where h is the step in log SNR / 2; zero when starting from pure noise."""
        return self.alpha * self.next_sigma / (self.sigma * self.next_alpha)

    def extrapolated(self) -> Tensor:
        """The denoised estimate in the middle of the step, from this one and the one before."""
        if self.previous_x0 is None or self.previous_alpha == 0:
            return self.x0
        step = _log_snr(self.next_alpha) - _log_snr(self.alpha)
        last_step = _log_snr(self.alpha) - _log_snr(self.previous_alpha)
        ratio = (step / (2 * last_step)).float()
        return self.x0 + ratio * (self.x0 - self.previous_x0)


def _log_snr(alpha: Tensor) -> Tensor:
    return torch.log(alpha / (1 - alpha**2).sqrt())


def ddim(step: Step, noise: Callable[[], Tensor]) -> Tensor:
    """First-order deterministic step. Draws nothing."""
    return _exponential_step(step, step.x0)


def dpmpp_2m(step: Step, noise: Callable[[], Tensor]) -> Tensor:
    """DPM-Solver++(2M), second-order deterministic (arXiv 2211.01095). Draws nothing."""
    return _exponential_step(step, step.extrapolated())


def sde_dpmpp_2m(step: Step, noise: Callable[[], Tensor]) -> Tensor:
    """SDE-DPM-Solver++(2M), the published sampler (arXiv 2211.01095). Draws once."""
    kept = step.decay**2
    x = (step.next_sigma / step.sigma * step.decay).float() * step.x
    x = x + (step.next_alpha * (1 - kept)).float() * step.extrapolated()
    return x + (step.next_sigma * (1 - kept).sqrt()).float() * noise().to(x)


def _exponential_step(step: Step, x0: Tensor) -> Tensor:
    x = (step.next_sigma / step.sigma).float() * step.x
    return x + (step.next_alpha * (1 - step.decay)).float() * x0


SAMPLERS = {"sde-dpm++2m": sde_dpmpp_2m, "dpm++2m": dpmpp_2m, "ddim": ddim}


def sample(
    predict: Predict,
    x: Tensor,
    schedule: Schedule,
    sampler: Callable[[Step, Callable[[], Tensor]], Tensor],
    noise: Callable[[], Tensor],
) -> Iterator[Tensor]:
    """Denoise `x` (float32), yielding the denoised estimate of every step; the last is the result.

    `noise` draws standard normal numbers of the shape of `x`.
    """
    alphas = schedule.alphas
    x0 = previous_alpha = None
    for i, timestep in enumerate(schedule.timesteps):
        previous_x0, x0 = x0, denoised(predict, x, timestep, alphas[i])
        yield x0
        if i + 1 < len(schedule.timesteps):
            step = Step(x, x0, previous_x0, previous_alpha, alphas[i], alphas[i + 1])
            x = sampler(step, noise)
            previous_alpha = alphas[i]
