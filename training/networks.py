"""The three networks of a checkpoint in training, and their batches."""

from dataclasses import dataclass
from functools import partial
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.network.layers import Attention, attention
from hallo3_core.network.transformer import Conditions, Denoiser, ReferenceNetwork, run_layer

from .loop import HALF

Voices = tuple[Tensor, Tensor | None]
"""Audio tokens, and the weights with which image tokens hear them: see `Networks.voices`."""


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
    def empty(cls, config: Hallo3Config, dtype: torch.dtype = torch.float32) -> "Networks":
        """Networks with torch's own initial weights."""
        kinds = Denoiser, ReferenceNetwork, AudioProjector
        return cls(*(kind(config, dtype=dtype) for kind in kinds))

    @classmethod
    def from_nothing(cls, config: Hallo3Config) -> "Networks":
        """Networks to train from scratch.

        At first every layer adds nothing, and the prediction is zero. Prompts and face embeddings
        change nothing, because the drawn world has none.
        """
        networks = cls.empty(config)
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

    def save_memory(self) -> None:
        """Gradient checkpointing: keep only the inputs of layers, and compute these again."""
        methods = ("forward", "reference_keys_values", "face_keys_values", "audio_keys_values")
        for layer in (*self.reference_network.layers, *self.denoiser.layers):
            for name in methods:
                if method := getattr(layer, name, None):
                    setattr(layer, name, partial(checkpoint, method, use_reentrant=False))

    def forward(self, batch: "Batch", attend: Attention | None = None) -> Tensor:
        """v of the noisy latents of a batch, with the attention that is fast on its device."""
        if attend is None:
            attend = plain_attention if HALF and batch.latents.is_cpu else attention
        text = self.text_of(batch)
        features, _ = self.reference_network(batch.reference, attend, text)
        conditions = self.conditions(batch, features)
        run = partial(run_layer, attend=attend)
        return self.denoiser(batch.latents, batch.timesteps, conditions, run)

    def text_of(self, batch: "Batch") -> Tensor:
        """(batch, tokens, width): the captions, or zeros."""
        if batch.text is not None:
            return batch.text
        shape = len(batch.latents), self.config.text_tokens, self.config.text_width
        return batch.latents.new_zeros(shape)

    def conditions(
        self, batch: "Batch", features: list[Tensor], voices: Voices | None = None
    ) -> Conditions:
        """The conditions of the denoiser, with the reference network's features.

        `voices` are what image tokens hear, if that is not the batch's own speech.
        """
        denoiser = self.denoiser
        return denoiser.conditions(
            self.text_of(batch),
            F.pad(batch.motion, (0, 0, 0, 0, 0, LATENT_FRAMES - 1)),
            denoiser.reference_keys_values(features),
            denoiser.face_keys_values(batch.face),
            *(voices or self.voices(batch.speech)),
        )

    def voices(self, speech: Tensor) -> Voices:
        """Audio tokens of a batch, and the weights with which image tokens hear them.

        `speech` is (batch, 49, 5, 12, channels), and then the weights are None. Or it is
        (batch, voices, 49, 5, 12, channels), and each column of the picture hears its own voice.
        The tokens are then (voices * batch, 13, tokens, width), and the weights
        (voices, batch * 13, image tokens).
        """
        if speech.ndim == 5:
            return self.audio_projector(speech), None
        batch, count = speech.shape[:2]
        weights = columns(count, self.config)[:, None].expand(-1, batch * LATENT_FRAMES, -1)
        return self.audio_projector(speech.transpose(0, 1).flatten(0, 1)), weights


def columns(count: int, config: Hallo3Config) -> Tensor:
    """(count, image tokens of a frame): 1 in one of the columns of a picture, which are of one
    width, and 0 elsewhere."""
    middles = (torch.arange(config.grid[1]) + 0.5) * count / config.grid[1]
    inside = middles.long() == torch.arange(count)[:, None]
    return inside.float()[:, None].expand(-1, config.grid[0], -1).flatten(1)


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention for bf16 on a CPU. Both passes take 0.6 of the time of torch's own."""
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
    return scores.softmax(-1) @ value


@dataclass(frozen=True)
class Batch:
    """Noisy latents and their conditions.

    `target` is the v to predict. `lips` is how much of each latent pixel is mouth. `speech` is as
    in `Networks.voices`. `text` is None if no example has a caption.
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    motion: Tensor
    reference: Tensor
    face: Tensor
    speech: Tensor
    lips: Tensor
    text: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(None if t is None else t.to(device) for t in vars(self).values()))

    def split(self, size: int) -> list["Batch"]:
        """The same examples in batches of `size`."""
        parts = [repeat(None) if t is None else t.split(size) for t in vars(self).values()]
        return [Batch(*part) for part in zip(*parts, strict=False)]
