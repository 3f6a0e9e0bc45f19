"""Training of the transformers, in the two published stages.

Arithmetic of the loss: the published squared error of the denoised estimate, weighted by
1 / (1 - alpha^2), is the squared error of v.
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
"""Shares of the examples whose condition is zero."""
REFERENCED = PUBLISHED | {"reference": 0}
"""The same for networks that are to take the face from the reference alone."""
LIPS = 30.0
"""Weight of the squared error where the mouth is, beside 1 everywhere."""
FIRST = 0.25
"""Share of the examples that begin like a first segment, with two frames of silence."""
WHOLE_EVERY = 8
"""Steps: so often one sees the whole picture."""
WATCHED = 32
"""Examples that are never trained on."""
AUDIO_MODULES = ("audio_projector.", "audio_norm.", "audio_attention.")


@dataclass(frozen=True)
class Stage:
    """What is trained, by name, and whether the speech is heard.

    `dropped` is the share of the examples without a condition. In the share `strangers` the motion
    frames have somebody else's face, so that only the reference says who it is. A timestep t of
    1000 is drawn with 1 - t / 1000 = u^noise, where u is uniform: 1 is as published, more is more
    often where the noise is high. In the first share `windows` of the steps, all but every eighth
    see no more than a window, of twice as many examples.
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
"""Networks that come from nothing go on learning all else while they learn to hear."""


def draw_batch(examples: Examples, stage: Stage, step: int) -> Batch:
    generator = np.random.default_rng([17, step])
    people, drawn = [examples.draw(generator) for _ in range(stage.batch)], []
    for example, stranger in zip(people, people[1:] + people[:1], strict=True):
        if generator.random() < stage.strangers:
            example = with_face_of(stranger, example)
        drawn.append(drop(example, stage.dropped, generator))
    video, reference, motion, speech, face, lips = (
        torch.stack([getattr(example, name) for example in drawn])
        for name in ("video", "reference", "motion", "speech", "face", "lips")
    )
    if not stage.hears:
        speech = torch.zeros_like(speech)
    timesteps = draw_timesteps(stage, generator)
    alpha = denoiser_alphas()[timesteps].float().view(-1, 1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    seed = int(generator.integers(2**62))
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(seed))
    return Batch(
        alpha * video + sigma * noise,
        timesteps,
        alpha * noise - sigma * video,
        motion,
        reference,
        face,
        speech,
        lips,
        join_texts([example.text for example in drawn]),
    )


def with_face_of(stranger: Example, example: Example) -> Example:
    """The motion latents become the stranger's where the face is; if that is the whole picture,
    nobody knows where it is, and they stay as they are."""
    if example.region.min() == 1:
        return example
    face = oval(example.region)
    return replace(example, motion=torch.where(face, stranger.motion, example.motion))


def oval(region: Tensor) -> Tensor:
    """(h, w) bool: inside the ellipse that touches the sides of the box `region`, in whose corners
    there is more hair and hat than face."""
    distance = torch.zeros_like(region)
    for axis in (0, 1):
        share = region.amax(1 - axis)
        place = torch.arange(len(share)) + 0.5
        middle = (share * place).sum() / share.sum()
        radius = share.sum() / 2
        distance += ((place - middle) / radius).square().unsqueeze(1 - axis)
    return distance < 1


def draw_timesteps(stage: Stage, generator: np.random.Generator) -> Tensor:
    """(batch,) int64, up to 999, which is nothing but noise."""
    clean = generator.random(stage.batch) ** stage.noise
    return TRAINING_STEPS - 1 - torch.from_numpy(clean * TRAINING_STEPS).long()


def join_texts(texts: list[Tensor | None]) -> Tensor | None:
    """A batch of captions, zero where there is none."""
    known = [text for text in texts if text is not None]
    if not known:
        return None
    return torch.stack([torch.zeros_like(known[0]) if text is None else text for text in texts])


def drop(example: Example, shares: dict[str, float], generator: np.random.Generator) -> Example:
    """Some conditions become zero, so that there is something to guide away from."""
    changed = {}
    for name, share in shares.items():
        value = getattr(example, name)
        if generator.random() < share and value is not None:
            changed[name] = torch.zeros_like(value)
    if "speech" not in changed and generator.random() < FIRST:
        silent = torch.zeros_like(example.speech[:MOTION_FRAMES])
        changed["speech"] = torch.cat([silent, example.speech[MOTION_FRAMES:]])
    return replace(example, **changed)


def losses(networks: Networks, batch: Batch, window: Window | None = None) -> dict[str, Tensor]:
    """Of the whole picture or of a window."""
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
    """Over all examples of some batches, one batch after the other."""
    count, means = sum(map(len, parts)), {}
    for part in parts:
        for name, loss in losses(networks, part.to(DEVICE)).items():
            means[name] = means.get(name, 0) + loss * len(part) / count
    return means


def freeze(networks: Networks, stage: Stage) -> None:
    """All but what the stage trains, which is kept in float32 from now on."""
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
    """The averaged networks after a stage; the log says how they do on `unseen` examples too."""
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
