"""Classifier-free guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

from .schedule import TRAINING_STEPS

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
