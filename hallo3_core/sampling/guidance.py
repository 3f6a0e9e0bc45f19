"""Classifier-free guidance."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .schedule import TRAINING_STEPS

Predict = Callable[[Tensor, Tensor], Tensor]
"""A function from (latents, timestep) to the prediction of v. The timestep is a scalar tensor."""

Together = Callable[[Sequence[Predict], Tensor, Tensor], list[Tensor]]
"""Computes several branches of guidance for the same latents and timestep, such as `in_turn`."""

Interval = tuple[float, float]
"""The first and the last guided point of sampling. 0 is pure noise, 1 is the clean latents."""

ALWAYS: Interval = (0, 1)


def in_turn(branches: Sequence[Predict], x: Tensor, timestep: Tensor) -> list[Tensor]:
    """The predictions of all branches, computed one after the other."""
    return [branch(x, timestep) for branch in branches]


def guided(
    unconditional: Predict,
    conditional: Predict,
    guidance: float,
    interval: Interval = ALWAYS,
    together: Together = in_turn,
) -> Predict:
    """Classifier-free guidance with two denoiser calls per step.

    Outside `interval`, and if `guidance` is 1, only the conditional branch is computed.
    """

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        if guidance == 1 or not inside(interval, timestep):
            return conditional(x, timestep)
        with_it, without = together((conditional, unconditional), x, timestep)
        return without + guidance * (with_it - without)

    return predict


def guided_apart(
    nothing: Predict,
    text: Predict,
    everything: Predict,
    speech_guidance: float,
    text_guidance: float,
    interval: Interval = ALWAYS,
    together: Together = in_turn,
) -> Predict:
    """Guidance of its own for speech and for text, with three denoiser calls per step.

    `nothing` has neither, `text` has only the prompt, and `everything` has both. Equal scales give
    the result of `guided`. Outside `interval`, only `everything` is computed.
    """

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        if not inside(interval, timestep):
            return everything(x, timestep)
        with_both, with_none, with_text = together((everything, nothing, text), x, timestep)
        return steer(with_none, with_text, with_both, speech_guidance, text_guidance)

    return predict


def steer(
    nothing: Tensor, text: Tensor, everything: Tensor, speech_guidance: float, text_guidance: float
) -> Tensor:
    """The guided prediction from those without conditions, with the prompt, and with speech too."""
    return nothing + text_guidance * (text - nothing) + speech_guidance * (everything - text)


def guided_at_once(both: Predict, guidance: float) -> Predict:
    """Classifier-free guidance with one denoiser call per step, on a batch of two.

    `both` takes latents (2, ...) and predicts v of the unconditional branch first, then of the
    conditional branch.
    """

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        without, with_it = both(torch.cat([x, x]), timestep).chunk(2)
        return without + guidance * (with_it - without)

    return predict


def inside(interval: Interval, timestep: Tensor) -> bool:
    """Whether the interval contains the step at this timestep."""
    start, end = interval
    return start <= 1 - int(timestep) / (TRAINING_STEPS - 1) <= end
