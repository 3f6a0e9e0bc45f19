"""Training of the transformers, in the two published stages.

The published loss is the squared error of the denoised estimate, weighted by 1 / (1 - alpha^2).
This equals the squared error of v, which is computed here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hallo3_core.network.config import MOTION_FRAMES
from hallo3_core.sampling.schedule import TRAINING_STEPS, denoiser_alphas

from .examples import Example, Examples
from .loop import DEVICE, Loop, Settings, mixed_precision
from .networks import Batch, Networks
from .window import Window, predict, window_on

PUBLISHED = {"speech": 0.05, "reference": 0.05, "motion": 0.05, "text": 0.1}
"""Shares of the examples in which a condition is set to zero."""
REFERENCED = PUBLISHED | {"reference": 0}
"""The same for networks that have to learn the face from the reference alone."""
LIPS = 30.0
"""Weight of the squared error on the mouth. It is added to a weight of 1 everywhere."""
FIRST = 0.25
"""Share of the examples that begin with two silent frames, as a first segment does."""
WHOLE_EVERY = 8
"""One step in so many sees the whole picture."""
WATCHED = 32
"""Number of examples for the loss on unseen shots."""
AUDIO_MODULES = ("audio_projector.", "audio_norm.", "audio_attention.")


@dataclass(frozen=True)
class Stage:
    """What is trained and how.

    `trains` says by its name whether a parameter is trained. `hears` is False if the speech is
    always zero. `dropped` gives the share of the examples in which each condition is set to zero.
    In the share `strangers` of the examples, the motion frames have another person's face, so that
    only the reference shows the right one.

    A timestep t is drawn with 1 - t / 1000 = u^noise, where u is uniform. `noise` is 1 in the
    published recipe; larger numbers draw noisy timesteps more often. In the first share `windows`
    of the steps, only every eighth step sees the whole picture. The others see a window of twice
    as many examples.
    """

    name: str
    trains: Callable[[str], bool]
    hears: bool
    settings: Settings
    batch: int = 8
    dropped: dict[str, float] = field(default_factory=PUBLISHED.copy)
    strangers: float = 0
    noise: float = 1
    windows: float = 0

    def sees_window(self, step: int) -> bool:
        return step < self.windows * self.settings.steps and (step + 1) % WHOLE_EVERY != 0


def is_audio(name: str) -> bool:
    return any(part in name for part in AUDIO_MODULES)


IDENTITY = Stage(
    "identity",
    lambda name: not is_audio(name),
    False,
    Settings(500, 1e-3, 3e-3),
    dropped=REFERENCED,
    strangers=0.9,
)
SPEECH = Stage(
    "speech",
    lambda name: True,
    True,
    Settings(10000, 1e-3, 3e-3),
    dropped=REFERENCED,
    strangers=0.9,
    noise=2,
    windows=0.9,
)
"""Here a model from scratch learns to follow speech, and continues to learn everything else."""
DISTILLED = Stage(
    "distill",
    lambda name: name.startswith("denoiser."),
    True,
    Settings(2000, 3e-4),
    batch=4,
    dropped={},
)


def draw_batch(examples: Examples, stage: Stage, step: int) -> Batch:
    generator = np.random.default_rng([17, step])
    drawn = draw_examples(examples, stage, generator)
    timesteps = draw_timesteps(stage, generator)
    alpha = denoiser_alphas()[timesteps].float().view(-1, 1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    seed = int(generator.integers(2**62))
    video = torch.stack([example.video for example in drawn])
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(seed))
    latents, target = alpha * video + sigma * noise, alpha * noise - sigma * video
    return batch_of(drawn, latents, timesteps, target)


def draw_examples(
    examples: Examples, stage: Stage, generator: np.random.Generator
) -> list[Example]:
    """As many as a batch of the stage has, with its strangers and without what it drops."""
    people, drawn = [examples.draw(generator) for _ in range(stage.batch)], []
    for example, stranger in zip(people, people[1:] + people[:1], strict=True):
        if generator.random() < stage.strangers:
            example = with_face_of(stranger, example)
        example = drop(example, stage.dropped, generator)
        if not stage.hears:
            example = replace(example, speech=torch.zeros_like(example.speech))
        drawn.append(example)
    return drawn


def batch_of(drawn: list[Example], latents: Tensor, timesteps: Tensor, target: Tensor) -> Batch:
    """Noisy latents with the conditions of examples."""
    motion, reference, face, speech, lips = (
        torch.stack([getattr(example, name) for example in drawn])
        for name in ("motion", "reference", "face", "speech", "lips")
    )
    text = join_texts([example.text for example in drawn])
    return Batch(latents, timesteps, target, motion, reference, face, speech, lips, text)


def with_face_of(stranger: Example, example: Example) -> Example:
    """The example with the stranger's motion latents where its face is.

    If the face region is the whole picture, no face was found, and nothing changes.
    """
    if example.region.min() == 1:
        return example
    face = oval(example.region)
    return replace(example, motion=torch.where(face, stranger.motion, example.motion))


def oval(region: Tensor) -> Tensor:
    """(h, w) bool: the ellipse in the box `region`.

    The corners of the box show hair and hat rather than the face.
    """
    distance = torch.zeros_like(region)
    for axis in (0, 1):
        share = region.amax(1 - axis)
        place = torch.arange(len(share)) + 0.5
        middle = (share * place).sum() / share.sum()
        radius = share.sum() / 2
        distance += ((place - middle) / radius).square().unsqueeze(1 - axis)
    return distance < 1


def draw_timesteps(stage: Stage, generator: np.random.Generator) -> Tensor:
    """(batch,) int64, 0 to 999. 999 is pure noise."""
    clean = generator.random(stage.batch) ** stage.noise
    return TRAINING_STEPS - 1 - torch.from_numpy(clean * TRAINING_STEPS).long()


def join_texts(texts: list[Tensor | None]) -> Tensor | None:
    """A batch of captions: zeros where there is none, or None if none has one."""
    known = [text for text in texts if text is not None]
    if not known:
        return None
    return torch.stack([torch.zeros_like(known[0]) if text is None else text for text in texts])


def drop(example: Example, shares: dict[str, float], generator: np.random.Generator) -> Example:
    """The example with some conditions set to zero, for classifier-free guidance."""
    changed = {}
    for name, share in shares.items():
        value = getattr(example, name)
        if generator.random() < share and value is not None:
            changed[name] = torch.zeros_like(value)
    if "speech" not in changed and generator.random() < FIRST:
        begins = example.speech.clone()
        begins[..., :MOTION_FRAMES, :, :, :] = 0
        changed["speech"] = begins
    return replace(example, **changed)


def losses(networks: Networks, batch: Batch, window: Window | None = None) -> dict[str, Tensor]:
    """Losses on the whole picture or on a window."""
    target, weight = batch.target, 1 + LIPS * batch.lips[:, None, None]
    with mixed_precision():
        if window is None:
            found = networks(batch)
        else:
            found = predict(networks, batch, window)
            target, weight = window.crop(target), window.crop(weight)
    error = (found.float() - target).square()
    return {"v": (weight * error).sum() / weight.expand_as(error).sum()}


def mean_losses(networks: Networks, parts: list[Batch]) -> dict[str, Tensor]:
    """Mean losses over all examples of some batches. One batch is computed at a time."""
    count, means = sum(map(len, parts)), {}
    for part in parts:
        for name, loss in losses(networks, part.to(DEVICE)).items():
            means[name] = means.get(name, 0) + loss * len(part) / count
    return means


def freeze(networks: Networks, stage: Stage) -> None:
    """Freeze what the stage does not train. What it trains becomes float32."""
    for name, parameter in networks.named_parameters():
        parameter.requires_grad_(stage.trains(name))
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def train(
    networks: Networks,
    examples: Examples,
    stage: Stage,
    folder: Path,
    unseen: Examples | None = None,
) -> Networks:
    """Train one stage. Returns the averaged networks. The loss on `unseen` examples is logged."""
    freeze(networks, stage)
    loop = Loop(folder / stage.name, networks, stage.settings)
    more = replace(stage, batch=2 * stage.batch)

    def losses_at(step: int) -> dict[str, Tensor]:
        if not stage.sees_window(step):
            return losses(networks, draw_batch(examples, stage, step).to(DEVICE))
        batch = draw_batch(examples, more, step).to(DEVICE)
        generator = np.random.default_rng([19, step])
        return losses(networks, batch, window_on(batch.lips, networks.config, generator))

    unseen_losses = None
    if unseen is not None:
        watched = draw_batch(unseen, replace(stage, batch=WATCHED), 0).split(stage.batch)
        unseen_losses = partial(mean_losses, networks, watched)
    loop.run(losses_at, unseen_losses)
    return loop.finish()
