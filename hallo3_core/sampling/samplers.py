"""The samplers. Each takes latents from noise to the clean latents, step by step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .guidance import Predict
from .inpainting import Source
from .schedule import Schedule, denoiser_alphas


def denoised(predict: Predict, x: Tensor, timestep: Tensor, alpha: Tensor) -> Tensor:
    """The denoised estimate of `x`, from the denoiser's prediction of v.

    It uses the entry of the denoiser's own table of alphas that is nearest to `alpha`.
    """
    table = denoiser_alphas()
    nearest = table[(table - alpha).abs().argmin()]
    sigma = (1 - nearest**2).sqrt()
    return nearest.float() * x - sigma.float() * predict(x, timestep)


@dataclass(frozen=True)
class Step:
    """The inputs of one update from `alpha` to `next_alpha`.

    `x` are the latents at `alpha` and `x0` is their denoised estimate. `previous_x0` and
    `previous_alpha` are those of the previous step, None in the first step.
    """

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
        """exp(-h), where h is the step in log SNR / 2. It is zero if the step starts at noise."""
        return self.alpha * self.next_sigma / (self.sigma * self.next_alpha)

    def extrapolated(self) -> Tensor:
        """The denoised estimate in the middle of the step, extrapolated from the last two."""
        if self.previous_x0 is None or self.previous_alpha is None or self.previous_alpha == 0:
            return self.x0
        step = _log_snr(self.next_alpha) - _log_snr(self.alpha)
        last_step = _log_snr(self.alpha) - _log_snr(self.previous_alpha)
        ratio = (step / (2 * last_step)).float()
        return self.x0 + ratio * (self.x0 - self.previous_x0)


def _log_snr(alpha: Tensor) -> Tensor:
    return torch.log(alpha / (1 - alpha**2).sqrt())


def ddim(step: Step, noise: Callable[[], Tensor]) -> Tensor:
    """DDIM, first-order and deterministic. It draws no noise."""
    return _exponential_step(step, step.x0)


def dpmpp_2m(step: Step, noise: Callable[[], Tensor]) -> Tensor:
    """DPM-Solver++(2M), second-order and deterministic (arXiv 2211.01095). It draws no noise."""
    return _exponential_step(step, step.extrapolated())


def sde_dpmpp_2m(step: Step, noise: Callable[[], Tensor]) -> Tensor:
    """SDE-DPM-Solver++(2M), the published sampler (arXiv 2211.01095). It draws noise once."""
    kept = step.decay**2
    x = (step.next_sigma / step.sigma * step.decay).float() * step.x
    x = x + (step.next_alpha * (1 - kept)).float() * step.extrapolated()
    return x + (step.next_sigma * (1 - kept).sqrt()).float() * noise().to(x)


def _exponential_step(step: Step, x0: Tensor) -> Tensor:
    x = (step.next_sigma / step.sigma).float() * step.x
    return x + (step.next_alpha * (1 - step.decay)).float() * x0


FEW = "few"
SAMPLERS = {"sde-dpm++2m": sde_dpmpp_2m, "dpm++2m": dpmpp_2m, "ddim": ddim, FEW: ddim}


def schedule_of(sampler: str, timesteps: Tensor) -> Schedule:
    """The schedule of a sampler over these timesteps.

    It is the published schedule. For `few`, the sampler of a distilled denoiser, it is the
    denoiser's own.
    """
    return Schedule.plain(timesteps) if sampler == FEW else Schedule.over(timesteps)


def sample(
    predict: Predict,
    x: Tensor,
    schedule: Schedule,
    sampler: Callable[[Step, Callable[[], Tensor]], Tensor],
    noise: Callable[[], Tensor],
    source: Source | None = None,
) -> Iterator[Tensor]:
    """Denoise standard normal noise `x` (float32). Yield the denoised estimate of each step.

    The last estimate is the result. `noise` draws standard normal numbers with the shape of `x`.
    With a `source`, only its mask is made again, from its latents with the noise `x`.
    """
    alphas, initial = schedule.alphas, x
    x = source.noised(initial, alphas[0]) if source else x
    previous_x0 = previous_alpha = None
    for i, timestep in enumerate(schedule.timesteps):
        seen = source.around(x, source.noised(initial, alphas[i])) if source else x
        x0 = denoised(predict, seen, timestep, alphas[i])
        x0 = source.keep(x0) if source else x0
        yield x0
        if i + 1 < len(schedule.timesteps):
            step = Step(x, x0, previous_x0, previous_alpha, alphas[i], alphas[i + 1])
            x = sampler(step, noise)
            previous_x0, previous_alpha = x0, alphas[i]
