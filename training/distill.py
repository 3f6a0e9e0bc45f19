"""Distillation: a few calls of the denoiser without guidance replace a hundred with guidance.

There are two methods. `trajectory`: the teacher samples in many deterministic steps with
classifier-free guidance. The student learns to go from one of its few timesteps to the next in one
call, along the teacher's trajectory. `clips`: the student samples with its few steps, and learns to
predict the clip itself at each of them. This needs no teacher. It works if the conditions decide
nearly the whole video, as they do in Hallo3.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hallo3_core.model.lora import STEPS_KEY
from hallo3_core.network.config import Size
from hallo3_core.sampling.guidance import Predict
from hallo3_core.sampling.samplers import Step, ddim
from hallo3_core.sampling.schedule import Schedule, spaced

from .denoiser import DISTILLED, Stage, batch_of, draw_examples, losses, mean_losses
from .examples import Examples
from .finetune import encoded, make_ready, open_networks, require_card, save_trained
from .loop import DEVICE, Loop, Settings
from .networks import Batch, Networks
from .trajectories import AT_ONCE, Teacher, Trajectories, conditioned, draw_batch, leading_v
from .window import Window, conditioned_in, window_on

METHODS = ("clips", "trajectory")
STEPS = 4
UNSEEN = 8
"""Batches of unseen clips whose loss is logged."""

Draw = Callable[[int], Batch]
"""The batch of a step."""
Unseen = Callable[[], dict[str, Tensor]]
"""The losses on unseen clips."""


def roll_out(networks: Networks, examples: Examples, stage: Stage, steps: int, step: int) -> Batch:
    """A batch of the method `clips`: the student's own latents, and the v that leads to the clip.

    The timestep is one of the student's `steps`, the same for the whole batch.
    """
    batch, phase = before(examples, stage, steps, step)
    x = batch.latents
    if phase:
        with torch.no_grad():
            x = after(conditioned(networks, batch), x, Schedule.plain(spaced(steps)), phase)
    return to_clip(batch, x, steps, phase)


def roll_out_in(
    networks: Networks, examples: Examples, stage: Stage, steps: int, size: Size, step: int
) -> tuple[Batch, Window]:
    """The same in windows of `size` on the mouths: rows and columns in tokens.

    Everything but the windows is left out, so that a step takes less time.
    """
    batch, phase = before(examples, stage, steps, step)
    generator = np.random.default_rng([19, step])
    window = window_on(batch.lips, networks.config, generator, size)
    x = window.crop(batch.latents)
    if phase:
        with torch.no_grad():
            predict = conditioned_in(networks, batch, window)
            x = after(predict, x, Schedule.plain(spaced(steps)), phase)
    return to_clip(batch, window.spread(x), steps, phase), window


def before(examples: Examples, stage: Stage, steps: int, step: int) -> tuple[Batch, int]:
    """Noise with the conditions of clips, the clips themselves as its target, and a random phase.

    The phase is the number of steps that the student has taken before it learns.
    """
    generator = np.random.default_rng([37, step])
    drawn = draw_examples(examples, stage, generator)
    video = torch.stack([example.video for example in drawn])
    noise = torch.Generator().manual_seed(int(generator.integers(2**62)))
    x = torch.randn(video.shape, generator=noise)
    phase = int(generator.integers(steps))
    timesteps = Schedule.plain(spaced(steps)).timesteps[phase].expand(len(drawn))
    return batch_of(drawn, x, timesteps, video).to(DEVICE), phase


def to_clip(batch: Batch, x: Tensor, steps: int, phase: int) -> Batch:
    """The batch with latents `x` and the v that leads from them to its target, the clip."""
    clean = torch.ones((), dtype=torch.float64)
    v = leading_v(x, batch.target, Schedule.plain(spaced(steps)).alphas[phase], clean)
    return replace(batch, latents=x, target=v)


def no_noise() -> Tensor:
    """The noise of a sampler that draws none."""
    raise AssertionError


def after(predict: Predict, x: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """The latents after the first steps of DDIM."""
    for i, timestep in enumerate(schedule.timesteps[:steps]):
        alpha, next_alpha = schedule.alphas[i : i + 2]
        x0 = alpha.float() * x - (1 - alpha**2).sqrt().float() * predict(x, timestep)
        x = ddim(Step(x, x0, None, None, alpha, next_alpha), no_noise)
    return x


def draws_of(
    options: Namespace, networks: Networks, examples: Examples, stage: Stage, folder: str
) -> Draw:
    """The batches of the chosen method.

    Trajectories are kept in `folder` of the run. They are sampled here, because the networks get
    the LoRA later, and the teacher has none.
    """
    if options.method == "clips":
        return partial(roll_out, networks, examples, stage, options.steps)
    teacher = Teacher(options.steps, guidance=options.guidance)
    trajectories = Trajectories(options.run / folder, examples, stage, teacher)
    groups = max(1, options.trajectories * len(examples) // AT_ONCE)
    trajectories.sample(networks, groups)
    return partial(draw_batch, trajectories, groups, stage.batch)


def train(
    networks: Networks, draw: Draw, stage: Stage, folder: Path, unseen: Unseen | None = None
) -> Networks:
    """Train the student on the batches of `draw`. Returns the averaged networks."""
    loop = Loop(folder / stage.name, networks, stage.settings)
    loop.run(lambda step: losses(networks, draw(step).to(DEVICE)), unseen)
    return loop.finish()


def distill(options: Namespace) -> list[Path]:
    """Distill as the command line says. Returns the files that were written."""
    model, networks = open_networks(options)
    settings = Settings(options.training_steps, options.rate, weight_decay=1e-4)
    stage = replace(DISTILLED, settings=settings, batch=options.batch)
    require_card(stage, options.lora, networks)
    examples = encoded(options, model, options.clips, "examples")
    networks.to(DEVICE)
    draw = draws_of(options, networks, examples, stage, "trajectories")
    unseen = None
    if options.unseen:
        others = encoded(options, model, options.unseen, "unseen")
        watched = draws_of(options, networks, others, stage, "unseen_trajectories")

        def unseen() -> dict[str, Tensor]:
            return mean_losses(networks, [watched(step) for step in range(UNSEEN)])

    torch.manual_seed(0)
    stage = make_ready(networks, stage, options.lora)
    networks = train(networks, draw, stage, options.run, unseen)
    return save_trained(options, networks, stage, {STEPS_KEY: str(options.steps)})
