"""The three networks of a checkpoint in training, and what they are given."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hallo3_core.conditioning import AudioProjector
from hallo3_core.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.layers import attention
from hallo3_core.transformer import Conditions, Denoiser, ReferenceNetwork

from .loop import HALF


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
        attend = plain_attention if HALF and batch.latents.is_cpu else attention
        text = self.text_of(batch)
        features, _ = self.reference_network(batch.reference, attend, text)
        conditions = self.conditions(batch, features)
        return self.denoiser(batch.latents, batch.timesteps, conditions, lambda layer: attend)

    def text_of(self, batch: "Batch") -> Tensor:
        """(batch, tokens, width), zero where there are no captions."""
        if batch.text is not None:
            return batch.text
        shape = len(batch.latents), self.config.text_tokens, self.config.text_width
        return batch.latents.new_zeros(shape)

    def conditions(self, batch: "Batch", features: list[Tensor]) -> Conditions:
        """What steers the denoiser, with the reference network's features."""
        denoiser = self.denoiser
        return Conditions(
            self.text_of(batch),
            F.pad(batch.motion, (0, 0, 0, 0, 0, LATENT_FRAMES - 1)),
            denoiser.reference_keys_values(features),
            denoiser.face_keys_values(batch.face),
            denoiser.audio_keys_values(self.audio_projector(batch.speech)),
        )


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """In bf16 on a CPU, back and forth in 0.6 of the time of torch's own."""
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
    return scores.softmax(-1) @ value


@dataclass(frozen=True)
class Batch:
    """Noisy latents with their conditions, `target`, the v that is to be found, and where the lips
    are; without `text` there is none in the whole batch."""

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    motion: Tensor
    reference: Tensor
    face: Tensor
    speech: Tensor
    lips: Tensor
    text: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(None if t is None else t.to(device) for t in vars(self).values()))
