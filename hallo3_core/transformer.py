"""The two video transformers: the denoiser, and the reference network that gives identity.

Latents are (batch, channels, frames, height, width). Text and image tokens are carried side by
side as two tensors (batch, tokens, width); they meet only in self-attention.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditioning import FaceProjector
from .config import LATENT_FRAMES, PATCH, Hallo3Config
from .layers import (
    MLP,
    Attention,
    CrossAttention,
    KeyValue,
    Modulation,
    Operations,
    Rotary,
    alone,
    attention,
    merge_heads,
    rotary_table,
    split_heads,
    timestep_embedding,
)


class Embed(nn.Module):
    """Latents, text and timestep to tokens and a time vector."""

    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__()
        rows = config.text_tokens + LATENT_FRAMES * config.frame_tokens
        self.width = config.width
        self.patch = operations.Conv2d(
            2 * config.latent_channels, config.width, PATCH, stride=PATCH, **factory
        )
        self.text = operations.Linear(config.text_width, config.width, **factory)
        self.position = nn.Parameter(torch.zeros(1, rows, config.width, **factory))
        self.time_in = operations.Linear(config.width, config.time_width, **factory)
        self.time_out = operations.Linear(config.time_width, config.time_width, **factory)

    def forward(
        self, latents: Tensor, timesteps: Tensor, text: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Text tokens, image tokens, and the activated time vector (batch, 1, time width)."""
        batch, frames = latents.shape[0], latents.shape[2]
        patches = self.patch(latents.transpose(1, 2).flatten(0, 1))
        image = patches.flatten(2).transpose(1, 2).unflatten(0, (batch, frames)).flatten(1, 2)
        time = timestep_embedding(timesteps, self.width).to(image.dtype)
        time = F.silu(self.time_out(F.silu(self.time_in(time))))
        position = self.position.to(image)
        text_position, image_position = position.tensor_split([text.shape[1]], dim=1)
        return (
            self.text(text) + text_position,
            image + image_position[:, : image.shape[1]],
            time[:, None],
        )


class Head(nn.Module):
    """Image tokens to latents."""

    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__()
        self.grid = config.grid
        self.norm_in = operations.LayerNorm(config.width, eps=1e-5, **factory)
        self.norm_out = operations.LayerNorm(config.width, eps=1e-6, **factory)
        self.modulation = operations.Linear(config.time_width, 2 * config.width, **factory)
        self.linear = operations.Linear(config.width, config.latent_channels * PATCH**2, **factory)

    def forward(self, image: Tensor, time: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """`grid` has the rows and columns of the tokens of a frame, if they are not all."""
        shift, scale = self.modulation(time).chunk(2, dim=-1)
        image = self.norm_out(self.norm_in(image))
        image = self.linear(torch.addcmul(shift, image, 1 + scale))
        patches = image.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (-1, *(grid or self.grid)))
        # (batch, frames, rows, columns, channels, p, q), p going with rows and q with columns
        return patches.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


class Layer(nn.Module):
    """A CogVideoX layer: joint self-attention and an MLP, both between adaptive norms and gates."""

    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.modulation = operations.Linear(config.time_width, 12 * width, **factory)
        self.attention_norm = operations.LayerNorm(width, eps=1e-5, **factory)
        self.query_key_value = operations.Linear(width, 3 * width, **factory)
        self.query_norm = operations.LayerNorm(config.head_width, eps=1e-6, **factory)
        self.key_norm = operations.LayerNorm(config.head_width, eps=1e-6, **factory)
        self.attention_out = operations.Linear(width, width, **factory)
        self.mlp_norm = operations.LayerNorm(width, eps=1e-5, **factory)
        self.mlp = MLP(width, operations, **factory)

    def modulations(self, time: Tensor) -> list[Modulation]:
        """Of image before attention and before the MLP, then of text before each."""
        vectors = self.modulation(time).chunk(12, dim=-1)
        return [Modulation(*vectors[i : i + 3]) for i in range(0, 12, 3)]

    def project(self, x: Tensor, rotary: Rotary | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Normed queries and keys, and values, of modulated tokens."""
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        query = self.query_norm(split_heads(query, self.heads))
        key = self.key_norm(split_heads(key, self.heads))
        if rotary is not None:
            query, key = rotary(query), rotary(key)
        return query, key, split_heads(value, self.heads)

    def self_attention(
        self,
        text: Tensor,
        image: Tensor,
        rotary: Rotary,
        attend: Attention,
        *reference: KeyValue,
    ) -> tuple[Tensor, Tensor]:
        """Attention of modulated text and image over themselves and the reference tokens."""
        query, *key_value = self.project(torch.cat([text, image], dim=1), rotary)
        sources = zip(key_value, *reference, strict=True)
        key, value = (torch.cat(parts, dim=2) for parts in sources)
        out = self.attention_out(merge_heads(attend(query, key, value)))
        return out.tensor_split([text.shape[1]], dim=1)

    def feed_forward(
        self, text: Tensor, image: Tensor, text_modulation: Modulation, image_modulation: Modulation
    ) -> tuple[Tensor, Tensor]:
        """Text and image after the MLP."""
        x = [text_modulation(self.mlp_norm(text)), image_modulation(self.mlp_norm(image))]
        out = self.mlp(torch.cat(x, dim=1))
        text_out, image_out = out.tensor_split([text.shape[1]], dim=1)
        return text_modulation.gated(text, text_out), image_modulation.gated(image, image_out)


class ReferenceLayer(Layer):
    def forward(
        self, text: Tensor, image: Tensor, time: Tensor, rotary: Rotary, attend: Attention
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Text and image after the layer, and the image tokens that entered its attention."""
        image_first, image_second, text_first, text_second = self.modulations(time)
        entering = image_first(self.attention_norm(image))
        text_in = text_first(self.attention_norm(text))
        text_out, image_out = self.self_attention(text_in, entering, rotary, attend)
        text = text_first.gated(text, text_out)
        image = image_first.gated(image, image_out)
        return *self.feed_forward(text, image, text_second, image_second), entering


class DenoiserLayer(Layer):
    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__(config, operations, **factory)
        width, heads = config.width, config.heads
        self.face_norm = operations.LayerNorm(width, eps=1e-5, **factory)
        self.face_attention = CrossAttention(width, config.face_width, heads, operations, **factory)
        self.audio_norm = operations.LayerNorm(width, eps=1e-5, **factory)
        self.audio_attention = CrossAttention(
            width, config.audio_width, heads, operations, **factory
        )

    def reference_keys_values(self, tokens: Tensor) -> KeyValue:
        """Of the reference network's tokens (batch, tokens, width); they carry no rotation."""
        _, key, value = self.project(tokens)
        return key, alone(value)

    def face_keys_values(self, tokens: Tensor) -> KeyValue:
        """Of face tokens (batch * frames, tokens, face width)."""
        return self.face_attention.keys_values(tokens, self.key_norm)

    def audio_keys_values(self, tokens: Tensor) -> KeyValue:
        """Of audio tokens (batch * frames, tokens, audio width)."""
        return self.audio_attention.keys_values(tokens, self.key_norm)

    def forward(
        self,
        text: Tensor,
        image: Tensor,
        time: Tensor,
        rotary: Rotary,
        attend: Attention,
        reference: KeyValue,
        face: KeyValue,
        audio: KeyValue,
        attend_across: Attention | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Text and image after the layer; `attend_across`, if given, looks at face and audio."""
        attend_across = attend_across or attend
        image_first, image_second, text_first, text_second = self.modulations(time)
        text_in = text_first(self.attention_norm(text))
        image_in = image_first(self.attention_norm(image))
        text_out, image_out = self.self_attention(text_in, image_in, rotary, attend, reference)
        text = text_first.gated(text, text_out)
        image = image_first.gated(image, image_out)

        frames = image.unflatten(1, (LATENT_FRAMES, -1)).flatten(0, 1)
        rotary = rotary.rows(text.shape[1], frames.shape[1])
        frames = frames + self.face_attention(
            self.face_norm(frames), face, self.query_norm, rotary, attend_across
        )
        frames = frames + self.audio_attention(
            self.audio_norm(frames), audio, self.query_norm, rotary, attend_across
        )
        image = frames.unflatten(0, (-1, LATENT_FRAMES)).flatten(1, 2)
        return self.feed_forward(text, image, text_second, image_second)


class ReferenceNetwork(nn.Module):
    """A CogVideoX transformer that looks at the reference image alone, once per portrait."""

    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__()
        self.config = config
        self.embed = Embed(config, operations, **factory)
        self.layers = nn.ModuleList(
            ReferenceLayer(config, operations, **factory) for _ in range(config.layers)
        )
        self.head = Head(config, operations, **factory)

    @property
    def placement(self) -> dict:
        """Device and dtype that the input has to have."""
        return {"device": self.embed.position.device, "dtype": self.embed.position.dtype}

    def forward(
        self, latents: Tensor, attend: Attention = attention, text: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Reference tokens of every layer, and the network's own prediction.

        `latents` (batch, 16, 1, height, width) are the scaled latents of the reference image.
        `text` (batch, tokens, width) is a caption's in training; otherwise it is zero.
        The tokens, each (batch, frame tokens, width), are all that the denoiser uses.
        """
        batch, config = latents.shape[0], self.config
        if text is None:
            text = latents.new_zeros(batch, config.text_tokens, config.text_width)
        timesteps = latents.new_zeros(batch)
        text, image, time = self.embed(torch.cat([latents, latents], dim=1), timesteps, text)
        rotary = rotary_table(config, frames=1, device=latents.device)
        features = []
        for layer in self.layers:
            text, image, entering = layer(text, image, time, rotary, attend)
            features.append(entering)
        return features, self.head(image, time)


def join_rows(rows: tuple[Tensor, ...]) -> Tensor:
    """Tensors one after the other in a batch; a single one that comes again takes no memory."""
    first = rows[0]
    if len(first) == 1 and all(row is first for row in rows):
        return first.expand(len(rows), *first.shape[1:])
    return torch.cat(rows)


@dataclass(frozen=True)
class Conditions:
    """What steers the denoiser and stays the same over all steps of a segment.

    `Denoiser.conditions` makes them; keys and values are those of every layer.
    """

    text: Tensor
    motion: Tensor
    reference: Iterable[KeyValue]
    face: Iterable[KeyValue]
    audio: Iterable[KeyValue]


def run_layer(
    index: int,
    layer: DenoiserLayer,
    text: Tensor,
    image: Tensor,
    time: Tensor,
    rotary: Rotary,
    *keys_values: KeyValue,
    attend: Attention = attention,
) -> tuple[Tensor, Tensor]:
    """Text and image after layer `index`; keys and values are of reference, face and audio."""
    return layer(text, image, time, rotary, attend, *keys_values)


class Denoiser(nn.Module):
    """Predicts v of the noisy latents of one segment."""

    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__()
        self.config = config
        self.embed = Embed(config, operations, **factory)
        self.face_projector = FaceProjector(config, operations, **factory)
        self.layers = nn.ModuleList(
            DenoiserLayer(config, operations, **factory) for _ in range(config.layers)
        )
        self.head = Head(config, operations, **factory)

    def reference_keys_values(self, features: Iterable[Tensor]) -> list[KeyValue]:
        """Of the reference network's tokens."""
        pairs = zip(self.layers, features, strict=True)
        return [layer.reference_keys_values(tokens) for layer, tokens in pairs]

    def face_keys_values(self, embedding: Tensor) -> list[KeyValue]:
        """Of a face embedding (batch, 512), the same for every frame."""
        tokens = self.face_projector(embedding).repeat_interleave(LATENT_FRAMES, dim=0)
        return [layer.face_keys_values(tokens) for layer in self.layers]

    def audio_keys_values(self, tokens: Tensor) -> list[KeyValue]:
        """Of the audio projector's tokens (batch, 13, tokens, width)."""
        return [layer.audio_keys_values(tokens.flatten(0, 1)) for layer in self.layers]

    def conditions(
        self,
        text: Tensor,
        motion: Tensor,
        reference: list[KeyValue],
        face: list[KeyValue],
        audio_tokens: Tensor,
    ) -> Conditions:
        """Conditions of a batch: a row for each of `text` and `audio_tokens`.

        Motion, reference and face are those of each row, or of one that all rows share. A whole
        video needs `reference_keys_values` and `face_keys_values` once, so they are handed in.
        """
        batch = len(text)

        def for_all(x: Tensor, rows: int = 1) -> Tensor:
            """`rows` of x belong to each row of the batch."""
            return x if len(x) == batch * rows else join_rows((x,) * batch)

        def layers(keys_values: list[KeyValue], rows: int = 1) -> list[KeyValue]:
            return [(for_all(key, rows), for_all(value, rows)) for key, value in keys_values]

        return Conditions(
            text,
            for_all(motion),
            layers(reference),
            layers(face, LATENT_FRAMES),
            self.audio_keys_values(audio_tokens),
        )

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditions: Conditions,
        run: Callable[..., tuple[Tensor, Tensor]] = run_layer,
    ) -> Tensor:
        """v of `latents` (batch, 16, 13, height, width) at `timesteps` (batch,) of 0 to 999.

        `run` is called for every layer, as `run_layer` is.
        """
        text, image, time = self.embed(
            torch.cat([latents, conditions.motion], dim=1), timesteps, conditions.text
        )
        rotary = rotary_table(self.config, LATENT_FRAMES, device=image.device)
        for i, (layer, *keys_values) in enumerate(self.conditioned_layers(conditions)):
            text, image = run(i, layer, text, image, time, rotary, *keys_values)
        return self.head(image, time)

    def conditioned_layers(self, conditions: Conditions) -> Iterator[tuple]:
        """Every layer with the keys and values of its own."""
        return zip(
            self.layers, conditions.reference, conditions.face, conditions.audio, strict=True
        )
