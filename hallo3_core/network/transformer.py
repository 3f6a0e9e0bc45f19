"""The two video transformers: the denoiser, and the reference network for the identity.

Latents are (batch, channels, frames, height, width). Text and image tokens are two tensors
(batch, tokens, width). Only self-attention mixes them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from .blocks import DenoiserLayer, Embed, Head, ReferenceLayer
from .conditioning import AudioProjector, FaceProjector
from .config import LATENT_FRAMES, Hallo3Config
from .layers import (
    Attention,
    Blend,
    Context,
    KeyValue,
    Operations,
    Rotary,
    attention,
    mapped,
    rotary_table,
)


@dataclass(frozen=True)
class Tokens:
    """Selects the tokens that the layers process: all tokens or, in training, a part of them.

    `select` takes all text and image tokens, each (batch, tokens, width), and returns the selected
    ones. `rotary` is the rotary table of the selected tokens. `grid` is the number of rows and
    columns of selected tokens in a frame.
    """

    rotary: Rotary
    grid: tuple[int, int]
    select: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def all_tokens(config: Hallo3Config, frames: int, device: torch.device) -> Tokens:
    """Select all text tokens and all image tokens of `frames` latent frames."""
    return Tokens(rotary_table(config, frames, device), config.grid, lambda *tokens: tokens)


class ReferenceNetwork(nn.Module):
    """A CogVideoX transformer for the reference image. It runs once per portrait."""

    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__()
        self.config = config
        self.embed = Embed(config, operations, **factory)
        self.layers = nn.ModuleList(
            ReferenceLayer(config, operations, **factory) for _ in range(config.layers)
        )
        self.head = Head(config, operations, **factory)

    @property
    def placement(self) -> dict[str, Any]:
        """The device and dtype that the input must have."""
        return {"device": self.embed.position.device, "dtype": self.embed.position.dtype}

    def forward(
        self,
        latents: Tensor,
        attend: Attention = attention,
        text: Tensor | None = None,
        tokens: Tokens | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Return the reference tokens of every layer, and the prediction of the network.

        `latents` (batch, 16, 1, height, width) are the scaled latents of the reference image.
        `text` (batch, tokens, text width) is the encoded caption in training, otherwise zeros.
        `tokens` selects tokens; default all.
        The reference tokens are (batch, frame tokens, width). The denoiser uses only these.
        """
        batch, config = latents.shape[0], self.config
        if text is None:
            text = latents.new_zeros(batch, config.text_tokens, config.text_width)
        timesteps = latents.new_zeros(batch)
        text, image, time = self.embed(torch.cat([latents, latents], dim=1), timesteps, text)
        tokens = tokens or all_tokens(config, 1, latents.device)
        text, image = tokens.select(text, image)
        features = []
        for layer in self.layers:
            text, image, entering = layer(text, image, time, tokens.rotary, attend)
            features.append(entering)
        return features, self.head(image, time, tokens.grid)


def join_rows(rows: tuple[Tensor, ...]) -> Tensor:
    """Concatenate tensors along the batch. One row that repeats is expanded, not copied."""
    first = rows[0]
    if len(first) == 1 and all(row is first for row in rows):
        return first.expand(len(rows), *first.shape[1:])
    return torch.cat(rows)


def join_contexts(contexts: tuple[Context, ...]) -> Context:
    """Concatenate contexts along the batch. They all are blends of as many parts, or none is."""
    blends = [context for context in contexts if isinstance(context, Blend)]
    if not blends:
        return join_pairs(cast(tuple[KeyValue, ...], contexts))
    pairs = zip(*(each.keys_values for each in blends), strict=True)
    weights = zip(*(each.weights for each in blends), strict=True)
    joined = tuple(map(join_pairs, pairs)), tuple(map(join_rows, weights))
    return Blend(*joined, blends[0].factor)


def join_pairs(pairs: tuple[KeyValue, ...]) -> KeyValue:
    keys, values = zip(*pairs, strict=True)
    return join_rows(keys), join_rows(values)


@dataclass(frozen=True)
class Conditions:
    """The inputs of the denoiser that are constant over all steps of a segment.

    `Denoiser.conditions` makes them. `text` is (batch, tokens, text width) and `motion`
    (batch, 16, 13, height, width). `reference`, `face` and `audio` have keys and values for every
    layer. Those of face and audio can be a `Blend`.
    """

    text: Tensor
    motion: Tensor
    reference: Iterable[Context]
    face: Iterable[Context]
    audio: Iterable[Context]


def run_layer(
    index: int,
    layer: DenoiserLayer,
    text: Tensor,
    image: Tensor,
    time: Tensor,
    rotary: Rotary,
    *contexts: Context,
    attend: Attention = attention,
) -> tuple[Tensor, Tensor]:
    """Return text and image tokens after layer `index`.

    `contexts` are the keys and values of reference, face and audio, in this order.
    """
    return layer(text, image, time, rotary, attend, *contexts)


def blend(keys_values: KeyValue, weights: Tensor, factor: float = 1.0) -> Blend:
    """The contexts of one video as a `Blend`.

    Keys and values are (contexts * 13, ...), and `weights` (contexts, 13, image tokens).
    """
    pairs = zip(*(part.chunk(len(weights)) for part in keys_values), strict=True)
    placed = weights.to(keys_values[0])[:, :, None, :, None]
    return Blend(tuple(pairs), tuple(placed), factor)


class Denoiser(nn.Module):
    """Predicts v from the noisy latents of a segment."""

    def __init__(self, config: Hallo3Config, operations: Operations = nn, **factory):
        super().__init__()
        self.config = config
        self.embed = Embed(config, operations, **factory)
        self.face_projector = FaceProjector(config, operations, **factory)
        self.layers = nn.ModuleList(
            DenoiserLayer(config, operations, **factory) for _ in range(config.layers)
        )
        self.head = Head(config, operations, **factory)

    def reference_keys_values(
        self, features: Iterable[Tensor], strength: float = 1.0
    ) -> list[KeyValue]:
        """Return keys and values of the reference network's tokens, for every layer.

        `strength` scales the values, and so what self-attention takes from these tokens.
        """
        pairs = zip(self.denoiser_layers, features, strict=True)
        found = (layer.reference_keys_values(tokens) for layer, tokens in pairs)
        return [(key, value if strength == 1 else value * strength) for key, value in found]

    def face_keys_values(
        self, embedding: Tensor, weights: Tensor | None = None, strength: float = 1.0
    ) -> list[Context]:
        """Return keys and values of a face embedding (batch, 512), for every layer.

        All latent frames have the same. With `weights` (faces, 13, image tokens), `embedding` has
        the faces of one video, and `strength` scales the output of the cross-attention.
        """
        tokens = self.face_projector(embedding).repeat_interleave(LATENT_FRAMES, dim=0)
        found = (layer.face_keys_values(tokens) for layer in self.denoiser_layers)
        return [pair if weights is None else blend(pair, weights, strength) for pair in found]

    def audio_keys_values(self, tokens: Tensor, weights: Tensor | None = None) -> list[Context]:
        """Return keys and values of audio tokens (batch, 13, tokens, width), for every layer.

        With `weights` (voices, 13, image tokens), `tokens` has the voices of one video.
        """
        found = (layer.audio_keys_values(tokens.flatten(0, 1)) for layer in self.denoiser_layers)
        return [pair if weights is None else blend(pair, weights) for pair in found]

    def conditions(
        self,
        text: Tensor,
        motion: Tensor,
        reference: Iterable[Context],
        face: Iterable[Context],
        audio_tokens: Tensor,
        audio_weights: Tensor | None = None,
    ) -> Conditions:
        """Make the conditions of a batch, one row for each row of `text` and `audio_tokens`.

        `motion`, `reference` and `face` have as many rows, or one row that all share. Compute
        `reference` and `face` once per video, with `reference_keys_values` and `face_keys_values`.
        With `audio_weights`, the batch is one video, as in `audio_keys_values`.
        """
        batch = len(text)

        def for_all(x: Tensor, rows: int = 1) -> Tensor:
            """Repeat x for each row of the batch if it has only `rows` rows."""
            return x if len(x) == batch * rows else join_rows((x,) * batch)

        return Conditions(
            text,
            for_all(motion),
            [mapped(pair, for_all) for pair in reference],
            [mapped(context, partial(for_all, rows=LATENT_FRAMES)) for context in face],
            self.audio_keys_values(audio_tokens, audio_weights),
        )

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditions: Conditions,
        run: Callable[..., tuple[Tensor, Tensor]] = run_layer,
        tokens: Tokens | None = None,
    ) -> Tensor:
        """Predict v of `latents` (batch, 16, 13, height, width); v has the same shape.

        `timesteps` (batch,) are from 0 to 999. `run` is called for every layer, with the arguments
        of `run_layer`. `tokens` selects tokens, default all; v then covers only the selected part.
        """
        text, image, time = self.embed(
            torch.cat([latents, conditions.motion], dim=1), timesteps, conditions.text
        )
        tokens = tokens or all_tokens(self.config, LATENT_FRAMES, image.device)
        text, image = tokens.select(text, image)
        for i, (layer, *contexts) in enumerate(self.conditioned_layers(conditions)):
            text, image = run(i, layer, text, image, time, tokens.rotary, *contexts)
        return self.head(image, time, tokens.grid)

    @property
    def denoiser_layers(self) -> Iterator[DenoiserLayer]:
        return cast(Iterator[DenoiserLayer], iter(self.layers))  # which a ModuleList does not say

    def conditioned_layers(self, conditions: Conditions) -> Iterator[tuple]:
        """Yield every layer with its keys and values of reference, face and audio."""
        return zip(
            self.layers, conditions.reference, conditions.face, conditions.audio, strict=True
        )


def empty_networks(config: Hallo3Config) -> tuple[Denoiser, ReferenceNetwork, AudioProjector]:
    """The networks without weights, on the meta device, where they take no memory."""
    with torch.device("meta"):
        return Denoiser(config), ReferenceNetwork(config), AudioProjector(config)
