"""The two video transformers: the denoiser, and the reference network that gives identity.

Latents are (batch, channels, frames, height, width). Text and image tokens are carried side by
side as two tensors (batch, tokens, width); they meet only in self-attention.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .blocks import DenoiserLayer, Embed, Head, ReferenceLayer
from .conditioning import FaceProjector
from .config import LATENT_FRAMES, Hallo3Config
from .layers import Attention, KeyValue, Operations, Rotary, attention, rotary_table


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
