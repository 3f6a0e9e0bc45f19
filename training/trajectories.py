"""Trajectories of a teacher: the latents during sampling in many steps with guidance.

A student, which has few timesteps, learns from the points at these timesteps: which v leads from
one point to the next in one call.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hallo3_core.sampling.guidance import Predict, guided
from hallo3_core.sampling.samplers import dpmpp_2m, sample
from hallo3_core.sampling.schedule import Schedule, spaced

from .denoiser import Stage, batch_of, draw_examples
from .examples import Example, Examples, digest, title_of
from .loop import DEVICE, mixed_precision
from .networks import Batch, Networks

AT_ONCE = 4
"""Trajectories that are sampled in one batch."""


@dataclass(frozen=True)
class Teacher:
    """How a trajectory is sampled: with `detail` steps for each of the student's `steps`."""

    steps: int = 4
    detail: int = 4
    guidance: float = 3.5

    @property
    def schedule(self) -> Schedule:
        return Schedule.plain(spaced(self.steps * self.detail))

    @property
    def student(self) -> Schedule:
        return Schedule.plain(spaced(self.steps))


class Trajectories:
    """Trajectories in a folder, one file each: (steps + 1, 16, 13, h, w), from noise to latents.

    The number of a file decides its examples and its noise.
    """

    def __init__(self, folder: Path, examples: Examples, stage: Stage, teacher: Teacher):
        self.folder, self.examples, self.teacher = folder, examples, teacher
        self.stage = replace(stage, batch=AT_ONCE)
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, group: int) -> Path:
        return self.folder / f"{group:06}.safetensors"

    def drawn(self, group: int) -> list[Example]:
        return draw_examples(self.examples, self.stage, np.random.default_rng([23, group]))

    def points(self, group: int) -> Tensor:
        """(AT_ONCE, steps + 1, 16, 13, h, w) float32."""
        return load_file(self.file(group))["points"].float()

    def sample(self, networks: Networks, groups: int) -> None:
        """Sample the groups that are missing or come from another teacher."""
        title = f"{self.teacher} {len(self.examples)} {digest(networks)}"
        for group in range(groups):
            file = self.file(group)
            if title_of(file) != title:
                points = self.sample_group(networks, group)
                partial = file.with_suffix(".partial")
                save_file({"points": points.half().cpu()}, partial, {"title": title})
                partial.replace(file)

    @torch.no_grad()
    def sample_group(self, networks: Networks, group: int) -> Tensor:
        drawn = self.drawn(group)
        shape = len(drawn), *drawn[0].video.shape
        x = torch.randn(shape, generator=torch.Generator().manual_seed(group)).to(DEVICE)
        nothing = torch.zeros(len(drawn), dtype=torch.long)
        batch = batch_of(drawn, x, nothing, x).to(DEVICE)
        predict = guided_by(networks, batch, self.teacher.guidance)
        *points, last = trajectory(predict, x, self.teacher.schedule)
        return torch.stack([*points[:: self.teacher.detail], last], dim=1)


def trajectory(predict: Predict, x: Tensor, schedule: Schedule) -> Iterator[Tensor]:
    """The noise, the latents after each step of DPM-Solver++(2M), and the result."""
    states = [x]

    def keep(step, noise):
        states.append(dpmpp_2m(step, noise))
        return states[-1]

    *_, last = sample(predict, x, schedule, keep, lambda: x)
    return [*states, last]


def guided_by(networks: Networks, batch: Batch, guidance: float) -> Predict:
    """The teacher's v, with guidance. The other branch has silence and no prompt."""
    silent = replace(
        batch,
        speech=torch.zeros_like(batch.speech),
        text=None if batch.text is None else torch.zeros_like(batch.text),
    )
    branches = [conditioned(networks, each) for each in (silent, batch)]
    return guided(*branches, guidance)


def conditioned(networks: Networks, batch: Batch) -> Predict:
    """Predict v with the conditions of a batch, which are computed once."""
    with mixed_precision():
        features, _ = networks.reference_network(batch.reference, text=networks.text_of(batch))
        conditions = networks.conditions(batch, features)

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        timesteps = timestep.to(x.device).expand(len(x))
        with mixed_precision():
            return networks.denoiser(x, timesteps, conditions).float()

    return predict


def draw_batch(trajectories: Trajectories, groups: int, batch: int, step: int) -> Batch:
    """A batch of points on random trajectories, with the v that leads to the next point."""
    generator = np.random.default_rng([31, step])
    rows = [draw_point(trajectories, groups, generator) for _ in range(batch)]
    drawn, latents, timesteps, target = zip(*rows, strict=True)
    return batch_of(list(drawn), torch.stack(latents), torch.stack(timesteps), torch.stack(target))


def draw_point(
    trajectories: Trajectories, groups: int, generator: np.random.Generator
) -> tuple[Example, Tensor, Tensor, Tensor]:
    group, row = int(generator.integers(groups)), int(generator.integers(AT_ONCE))
    phase = int(generator.integers(trajectories.teacher.steps))
    x, next_x = trajectories.points(group)[row, phase : phase + 2]
    schedule = trajectories.teacher.student
    v = leading_v(x, next_x, *schedule.alphas[phase : phase + 2])
    return trajectories.drawn(group)[row], x, schedule.timesteps[phase], v


def leading_v(x: Tensor, next_x: Tensor, alpha: Tensor, next_alpha: Tensor) -> Tensor:
    """The v with which one DDIM step leads from `x` to `next_x`."""
    sigma, next_sigma = (1 - alpha**2).sqrt(), (1 - next_alpha**2).sqrt()
    kept = next_sigma / sigma
    x0 = (next_x - kept.float() * x) / (next_alpha - kept * alpha).float()
    return (alpha.float() * x - x0) / sigma.float()
