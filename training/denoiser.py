"""Training of the transformers, in the two published stages.

Arithmetic of the loss: the published squared error of the denoised estimate, weighted by
1 / (1 - alpha^2), is the squared error of v.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hallo3_core.conditioning import AudioProjector
from hallo3_core.config import LATENT_FRAMES, MOTION_FRAMES, Hallo3Config
from hallo3_core.layers import attention
from hallo3_core.sampling import TRAINING_STEPS, denoiser_alphas
from hallo3_core.transformer import Conditions, Denoiser, ReferenceNetwork

from .examples import Example, Examples
from .loop import DEVICE, HALF, Loop, Settings, mixed_precision

DROPPED = {"speech": 0.05, "reference": 0.05, "motion": 0.05, "text": 0.1}
"""Shares of the examples whose condition is zero."""
LIPS = 30.0
"""Weight of the squared error where the mouth is, beside 1 everywhere."""
FIRST = 0.25
"""Share of the examples that begin like a first segment, with two frames of silence."""
WATCHED = 32
"""Examples that are never trained on, in one batch."""
AUDIO_MODULES = ("audio_projector.", "audio_norm.", "audio_attention.")


class Networks(nn.Module):
    """The three networks of a checkpoint."""

    def __init__(
        self, denoiser: Denoiser, reference_network: ReferenceNetwork, projector: AudioProjector
    ):
        super().__init__()
        self.config = denoiser.config
        self.denoiser = denoiser
        self.reference_network = reference_network
        self.audio_projector = projector

    @classmethod
    def from_nothing(cls, config: Hallo3Config) -> "Networks":
        """Every layer adds nothing at first, and the head says zero.

        Prompts and face embeddings, of which the drawn world has none, change nothing.
        """
        networks = cls(Denoiser(config), ReferenceNetwork(config), AudioProjector(config))
        networks.be_silent()
        return networks

    def be_silent(self) -> None:
        silent = [self.denoiser.head.linear]
        for network in (self.denoiser, self.reference_network):
            nn.init.trunc_normal_(network.embed.position, std=0.02)
            silent += [layer.modulation for layer in network.layers]
        for layer in self.denoiser.layers:
            silent += [layer.face_attention.out, layer.audio_attention.out]
        for linear in silent:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (
            self.denoiser.embed.text,
            self.reference_network.embed.text,
            self.denoiser.face_projector.linear,
        ):
            nn.init.zeros_(linear.weight)

    def forward(self, batch: "Batch") -> Tensor:
        """v of the noisy latents of a batch."""
        denoiser = self.denoiser
        text = batch.text
        if text is None:
            shape = len(batch.latents), self.config.text_tokens, self.config.text_width
            text = batch.latents.new_zeros(shape)
        attend = plain_attention if HALF and batch.latents.is_cpu else attention
        features, _ = self.reference_network(batch.reference, attend, text)
        tokens = self.audio_projector(batch.speech)
        motion = F.pad(batch.motion, (0, 0, 0, 0, 0, LATENT_FRAMES - 1))
        conditions = Conditions(
            text,
            motion,
            denoiser.reference_keys_values(features),
            denoiser.face_keys_values(batch.face),
            denoiser.audio_keys_values(tokens),
        )
        return denoiser(batch.latents, batch.timesteps, conditions, lambda layer: attend)


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """In bf16 on a CPU, back and forth in 0.6 of the time of torch's own."""
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
    return scores.softmax(-1) @ value


@dataclass(frozen=True)
class Batch:
    """Noisy latents with their conditions, `target`, the v that is to be found, and the weight of
    its error in every latent pixel; without `text` there is none in the whole batch."""

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    motion: Tensor
    reference: Tensor
    face: Tensor
    speech: Tensor
    weight: Tensor
    text: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(None if t is None else t.to(device) for t in vars(self).values()))


@dataclass(frozen=True)
class Stage:
    """What is trained, by name, and whether the speech is heard.

    A timestep t of 1000 is drawn with 1 - t / 1000 = u^noise, where u is uniform: 1 is as
    published, more is more often where the noise is high.
    """

    name: str
    trains: Callable[[str], bool]
    hears: bool
    settings: Settings
    batch: int = 8
    noise: float = 1


def is_audio(name: str) -> bool:
    return any(part in name for part in AUDIO_MODULES)


IDENTITY = Stage("identity", lambda name: not is_audio(name), False, Settings(500, 1e-3, 3e-3))
SPEECH = Stage("speech", lambda name: True, True, Settings(10200, 1e-3, 3e-3), noise=2)
"""Networks that come from nothing go on learning all else while they learn to hear."""


def draw_batch(examples: Examples, stage: Stage, step: int) -> Batch:
    generator = np.random.default_rng([17, step])
    drawn = [drop(examples.draw(generator), generator) for _ in range(stage.batch)]
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
        1 + LIPS * lips[:, None, None],
        join_texts([example.text for example in drawn]),
    )


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


def drop(example: Example, generator: np.random.Generator) -> Example:
    """Some conditions become zero, so that there is something to guide away from."""
    changed = {}
    for field, share in DROPPED.items():
        value = getattr(example, field)
        if generator.random() < share and value is not None:
            changed[field] = torch.zeros_like(value)
    if "speech" not in changed and generator.random() < FIRST:
        silent = torch.zeros_like(example.speech[:MOTION_FRAMES])
        changed["speech"] = torch.cat([silent, example.speech[MOTION_FRAMES:]])
    return replace(example, **changed)


def losses(networks: Networks, batch: Batch) -> dict[str, Tensor]:
    with mixed_precision():
        found = networks(batch)
    error = (found.float() - batch.target).square()
    return {"v": (batch.weight * error).sum() / (batch.weight.expand_as(error).sum())}


def train(
    networks: Networks,
    examples: Examples,
    stage: Stage,
    folder: Path,
    unseen: Examples | None = None,
) -> Networks:
    """The averaged networks after a stage; the log says how they do on `unseen` examples too."""
    for name, parameter in networks.named_parameters():
        parameter.requires_grad_(stage.trains(name))
    loop = Loop(folder / stage.name, networks, stage.settings)

    def losses_at(step: int) -> dict[str, Tensor]:
        return losses(networks, draw_batch(examples, stage, step).to(DEVICE))

    if unseen is None:
        loop.run(losses_at)
    else:
        watched = draw_batch(unseen, replace(stage, batch=WATCHED), 0).to(DEVICE)
        loop.run(losses_at, lambda: losses(networks, watched))
    return loop.finish()
