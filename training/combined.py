"""The student of both methods of distillation: mouths from trajectories, the rest from clips.

A student of clips has the right face, but it predicts the mean of what a mouth may do, so it opens
mouths too little. A student of a guided teacher's trajectories opens them as far as the teacher,
but its faces are less like the portrait. The average of their weights (model soups, Wortsman et al.
2022) is between the two. The student begins there. Then it learns to do on the mouth what the
average does, and elsewhere what leads to the clip.
"""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hallo3_core import builtin

from . import distill
from .denoiser import DISTILLED, freeze, losses
from .distill import roll_out
from .examples import Examples
from .loop import DEVICE, Loop, Settings, mixed_precision
from .networks import Batch, Networks
from .trajectories import Teacher, Trajectories, draw_batch

TRAJECTORY = replace(
    DISTILLED, name="trajectory", settings=Settings(168, 3e-4, warmup=30, average=0.99)
)
GROUPS = 20
"""Groups of four trajectories of the teacher."""
COMBINED = replace(
    DISTILLED,
    name="combined",
    settings=Settings(300, 2e-4, warmup=20, average=0.97),
    dropped={"speech": 0.05},
    strangers=0.9,
)


def by_trajectory(networks: Networks, examples: Examples, folder: Path) -> Networks:
    """Distill the teacher `networks` to a student of its own trajectories, with guidance."""
    teacher = Teacher(builtin.STEPS)
    trajectories = Trajectories(folder / "trajectories", examples, TRAJECTORY, teacher)
    trajectories.sample(networks.to(DEVICE), GROUPS)
    freeze(networks, TRAJECTORY)
    draw = partial(draw_batch, trajectories, GROUPS, TRAJECTORY.batch)
    return distill.train(networks, draw, TRAJECTORY, folder)


def train(
    of_clips: Networks, of_trajectories: Networks, examples: Examples, folder: Path
) -> Networks:
    """Train a student from the average of two, which may differ only in their denoisers.

    Returns its average with `of_clips`, whose faces are a little more like the portraits.
    """
    networks = deepcopy(of_clips)
    average(networks, of_trajectories)
    teacher = deepcopy(networks).to(DEVICE)
    freeze(networks, COMBINED)
    loop = Loop(folder / COMBINED.name, networks, COMBINED.settings)

    def losses_at(step: int) -> dict[str, Tensor]:
        batch = roll_out(networks, examples, COMBINED, builtin.STEPS, step)
        return losses(networks, with_mouths_of(teacher, batch))

    loop.run(losses_at)
    student = loop.finish()
    average(student, of_clips)
    return student


@torch.no_grad()
def average(networks: Networks, others: Networks) -> None:
    """Set the weights of the denoiser to the mean of those of two networks."""
    for weight, other in zip(
        networks.denoiser.parameters(), others.denoiser.parameters(), strict=True
    ):
        weight.lerp_(other.to(weight), 0.5)


@torch.no_grad()
def with_mouths_of(teacher: Networks, batch: Batch) -> Batch:
    """The batch with what the teacher predicts as the target on mouths and one pixel around."""
    with mixed_precision():
        found = teacher(batch).float()
    mouth = F.max_pool2d(batch.lips[:, None], 3, stride=1, padding=1)[:, :, None] > 0
    return replace(batch, target=torch.where(mouth, found, batch.target))
