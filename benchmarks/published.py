"""The published algorithm without our savings, on the same weights.

Reference tokens take part in every self-attention as queries, keys and values. Each call computes
the projectors and all keys and values. Both branches of guidance are in one batch. Each of our
savings can be switched on alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hallo3_core.network.blocks import DenoiserLayer
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.network.layers import attention, merge_heads
from hallo3_core.network.transformer import Denoiser


@dataclass(frozen=True)
class Savings:
    """Which of our savings are on."""

    no_reference_queries: bool = False
    kept_projections: bool = False
    kept_reference: bool = False


class Rotary(NamedTuple):
    """Cosine and sine of every number's angle, (tokens, head width)."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def table(cls, config: Hallo3Config, device: torch.device) -> "Rotary":
        rows, columns = config.grid
        sizes = (LATENT_FRAMES, rows, columns)
        angles = []
        for axis, count in enumerate(sizes):
            width = config.head_width // 4 if axis == 0 else 3 * config.head_width // 8
            frequencies = 10_000.0 ** -(torch.arange(0, width, 2, device=device).float() / width)
            angle = torch.arange(count, device=device).float()[:, None] * frequencies
            shape = [1, 1, 1, -1]
            shape[axis] = count
            angles.append(angle.repeat_interleave(2, dim=-1).view(shape).expand(*sizes, -1))
        table = torch.cat(angles, dim=-1).flatten(0, 2)
        return cls(table.cos(), table.sin())

    def __call__(self, x: Tensor) -> Tensor:
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([-odd, even], dim=-1).flatten(-2)
        return (x * self.cos + turned * self.sin).to(x.dtype)

    def first(self, tokens: int) -> "Rotary":
        return Rotary(self.cos[:tokens], self.sin[:tokens])


@dataclass
class PublishedDenoiser:
    """Predicts v for a batch of rows with the weights of `denoiser` and `projector`.

    The first call makes what a saving keeps, and later calls use it.
    """

    denoiser: Denoiser
    projector: AudioProjector
    savings: Savings = Savings()

    def __post_init__(self):
        self.kept: dict[str, object] = {}

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        motion: Tensor,
        features: list[Tensor],
        face: Tensor,
        windows: Tensor,
    ) -> Tensor:
        """v of `latents` (rows, 16, 13, height, width).

        `features` are the reference network's tokens, `face` embeddings (rows, 512), and `windows`
        of speech (rows, 49, 5, 12, channels).
        """
        network, config = self.denoiser, self.denoiser.config
        inputs = torch.cat([latents, motion], dim=1)
        text, image, time = network.embed(inputs, timesteps, text)
        rotary = Rotary.table(config, image.device)
        audio = self.keep("audio", lambda: self.projector(windows).flatten(0, 1))
        face = self.keep("face", lambda: self.face_tokens(face))
        tokens, count = torch.cat([text, image], dim=1), text.shape[1]
        for i, layer in enumerate(network.layers):
            tokens = self.layer(i, layer, tokens, count, time, rotary, features[i], face, audio)
        return network.head(tokens[:, count:], time, config.grid)

    def keep(self, name: str, make):
        if not self.savings.kept_projections:
            return make()
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def face_tokens(self, face: Tensor) -> Tensor:
        return self.denoiser.face_projector(face).repeat_interleave(LATENT_FRAMES, dim=0)

    def layer(
        self,
        index: int,
        layer: DenoiserLayer,
        tokens: Tensor,
        count: int,
        time: Tensor,
        rotary,
        reference: Tensor,
        face: Tensor,
        audio: Tensor,
    ) -> Tensor:
        """A layer on one sequence of text and image `tokens`. The first `count` are text."""
        image_first, image_second, text_first, text_second = layer.modulations(time)
        tokens = self.gated(
            tokens,
            self.self_attention(
                index,
                layer,
                modulated(layer.attention_norm(tokens), count, text_first, image_first),
                count,
                rotary,
                reference,
            ),
            count,
            text_first,
            image_first,
        )
        text, image = tokens[:, :count], tokens[:, count:]
        frames = image.unflatten(1, (LATENT_FRAMES, -1)).flatten(0, 1)
        first = rotary.first(frames.shape[1])
        for name, cross, norm, context in (
            ("face", layer.face_attention, layer.face_norm, face),
            ("audio", layer.audio_attention, layer.audio_norm, audio),
        ):
            keys_values = self.keep(
                f"{name} {index}", lambda c=cross, x=context: c.keys_values(x, layer.key_norm)
            )
            frames = frames + cross(norm(frames), keys_values, layer.query_norm, first, attention)
        image = frames.unflatten(0, (-1, LATENT_FRAMES)).flatten(1, 2)
        tokens = torch.cat([text, image], dim=1)
        x = modulated(layer.mlp_norm(tokens), count, text_second, image_second)
        return self.gated(tokens, layer.mlp(x), count, text_second, image_second)

    def self_attention(self, index, layer, tokens, count, rotary, reference) -> Tensor:
        rows, length = len(tokens), tokens.shape[1]
        reference = reference.expand(rows, -1, -1)
        if self.savings.kept_reference:
            if ("reference", index) not in self.kept:
                self.kept["reference", index] = layer.reference_keys_values(reference)
            query, key, value = layer.project(tokens)
            reference_key, reference_value = self.kept["reference", index]
            key = torch.cat([key, reference_key], dim=2)
            value = torch.cat([value, reference_value], dim=2)
        else:
            query, key, value = layer.project(torch.cat([tokens, reference], dim=1))
            if self.savings.no_reference_queries:
                query = query[:, :, :length]
        query, key = (
            torch.cat([x[:, :, :count], rotary(x[:, :, count:length]), x[:, :, length:]], dim=2)
            for x in (query, key)
        )
        out = merge_heads(F.scaled_dot_product_attention(query, key, value))
        return layer.attention_out(out[:, :length])

    @staticmethod
    def gated(tokens: Tensor, change: Tensor, count: int, text, image) -> Tensor:
        parts = (text.gate * change[:, :count], image.gate * change[:, count:])
        return tokens + torch.cat(parts, dim=1)


def modulated(tokens: Tensor, count: int, text, image) -> Tensor:
    return torch.cat([text(tokens[:, :count]), image(tokens[:, count:])], dim=1)
