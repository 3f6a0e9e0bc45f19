"""The branches of guidance, each on cards of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from ..errors import InputError
from ..sampling.guidance import Predict
from ..settings import Settings
from .wire import broadcast


class Dealt:
    """Deals the branches of guidance out to the cards of `group`. All cards get all results."""

    def __init__(self, group: ProcessGroup):
        self.group = group

    def __call__(self, branches: Sequence[Predict], x: Tensor, timestep: Tensor) -> list[Tensor]:
        size, rank = self.group.size(), self.group.rank()
        found = [
            branch(x, timestep) if i % size == rank else torch.empty_like(x)
            for i, branch in enumerate(branches)
        ]
        return [broadcast(v.contiguous(), i % size, self.group) for i, v in enumerate(found)]


def guidance_groups(cards: int, heads: int, settings: Settings, wanted: bool | None) -> int:
    """How many groups of cards share the branches of guidance: 1 or 2.

    `wanted` says whether the branches are split; None splits them if that is possible. The cards of
    a group share the `heads` of the denoiser. Raises `InputError` if they cannot.
    """
    branches = 1 if set(settings.guidances) == {1} else 2
    if wanted and branches == 1:
        raise InputError(
            "Guidance is 1, so there is only one branch: leave out --split-guidance. The cards "
            "share the tokens."
        )
    if wanted and cards % 2:
        raise InputError(
            f"{cards} cards cannot share two branches equally: leave out --split-guidance, or take "
            "an even number of cards."
        )
    groups = 2 if branches == 2 and cards % 2 == 0 and wanted is not False else 1
    if heads % (cards // groups):
        usable = [n for n in range(1, heads + 1) if heads % n == 0]
        counts = ", ".join(str(n * groups) for n in usable)
        raise InputError(
            f"{cards} cards cannot share the {heads} heads of the model equally: take one of these "
            f"numbers of cards: {counts}."
        )
    return groups
