"""The parts of the two video transformers: the embedding, the layers and the output head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LATENT_FRAMES, PATCH, Hallo3Config
from .layers import (
    MLP,
    Attention,
    Context,
    CrossAttention,
    KeyValue,
    Modulation,
    Operations,
    Rotary,
    alone,
    merge_heads,
    split_heads,
    timestep_embedding,
)


class Embed(nn.Module):
    """Turns latents, text and timestep into tokens and a time vector."""

    def __init__(self, config: Hallo3Config, operations: Operations, **factory):
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
        """Return text tokens, image tokens and the activated time vector.

        `latents` (batch, 2 * channels, frames, height, width), `timesteps` (batch,) and `text`
        (batch, tokens, text width). The tokens are (batch, tokens, width), the time vector is
        (batch, 1, time width).
        """
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
    """Turns image tokens into latents."""

    def __init__(self, config: Hallo3Config, operations: Operations, **factory):
        super().__init__()
        self.norm_in = operations.LayerNorm(config.width, eps=1e-5, **factory)
        self.norm_out = operations.LayerNorm(config.width, eps=1e-6, **factory)
        self.modulation = operations.Linear(config.time_width, 2 * config.width, **factory)
        self.linear = operations.Linear(config.width, config.latent_channels * PATCH**2, **factory)

    def forward(self, image: Tensor, time: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return latents (batch, channels, frames, height, width).

        `image` (batch, tokens, width), `time` (batch, 1, time width). `grid` is the number of rows
        and columns of tokens in a frame.
        """
        shift, scale = self.modulation(time).chunk(2, dim=-1)
        image = self.norm_out(self.norm_in(image))
        image = self.linear(torch.addcmul(shift, image, 1 + scale))
        patches = image.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (-1, *grid))
        # (batch, frames, rows, columns, channels, p, q): p is a row and q a column in a patch
        return patches.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


class Layer(nn.Module):
    """A CogVideoX layer: joint self-attention and an MLP.

    Adaptive layer norm modulates the input of each, and a gate scales the output of each.
    """

    def __init__(self, config: Hallo3Config, operations: Operations, **factory):
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
        """Return four modulations: image attention, image MLP, text attention, text MLP."""
        vectors = self.modulation(time).chunk(12, dim=-1)
        return [Modulation(*vectors[i : i + 3]) for i in range(0, 12, 3)]

    def project(self, x: Tensor, rotary: Rotary | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of modulated tokens (batch, tokens, width).

        Queries and keys are normalized, and rotated if `rotary` is given. Each result is
        (batch, heads, tokens, head width).
        """
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
        """Attend from modulated text and image tokens to both and to the reference tokens.

        `reference` is empty, or the keys and values of the reference tokens.
        """
        query, *key_value = self.project(torch.cat([text, image], dim=1), rotary)
        sources = zip(key_value, *reference, strict=True)
        key, value = (torch.cat(parts, dim=2) for parts in sources)
        out = self.attention_out(merge_heads(attend(query, key, value)))
        return out.tensor_split([text.shape[1]], dim=1)

    def feed_forward(
        self, text: Tensor, image: Tensor, text_modulation: Modulation, image_modulation: Modulation
    ) -> tuple[Tensor, Tensor]:
        """Return text and image tokens after the MLP."""
        x = [text_modulation(self.mlp_norm(text)), image_modulation(self.mlp_norm(image))]
        out = self.mlp(torch.cat(x, dim=1))
        text_out, image_out = out.tensor_split([text.shape[1]], dim=1)
        return text_modulation.gated(text, text_out), image_modulation.gated(image, image_out)


class ReferenceLayer(Layer):
    def forward(
        self, text: Tensor, image: Tensor, time: Tensor, rotary: Rotary, attend: Attention
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return text and image tokens after the layer, and the modulated image tokens.

        The modulated image tokens are those that entered self-attention. The denoiser uses them.
        """
        image_first, image_second, text_first, text_second = self.modulations(time)
        entering = image_first(self.attention_norm(image))
        text_in = text_first(self.attention_norm(text))
        text_out, image_out = self.self_attention(text_in, entering, rotary, attend)
        text = text_first.gated(text, text_out)
        image = image_first.gated(image, image_out)
        return *self.feed_forward(text, image, text_second, image_second), entering


class DenoiserLayer(Layer):
    def __init__(self, config: Hallo3Config, operations: Operations, **factory):
        super().__init__(config, operations, **factory)
        width, heads = config.width, config.heads
        self.face_norm = operations.LayerNorm(width, eps=1e-5, **factory)
        self.face_attention = CrossAttention(width, config.face_width, heads, operations, **factory)
        self.audio_norm = operations.LayerNorm(width, eps=1e-5, **factory)
        self.audio_attention = CrossAttention(
            width, config.audio_width, heads, operations, **factory
        )

    def reference_keys_values(self, tokens: Tensor) -> KeyValue:
        """Return keys and values of the reference tokens (batch, tokens, width), not rotated."""
        _, key, value = self.project(tokens)
        return key, alone(value)

    def face_keys_values(self, tokens: Tensor) -> KeyValue:
        """Return keys and values of the face tokens (batch * frames, tokens, face width)."""
        return self.face_attention.keys_values(tokens, self.key_norm)

    def audio_keys_values(self, tokens: Tensor) -> KeyValue:
        """Return keys and values of the audio tokens (batch * frames, tokens, audio width)."""
        return self.audio_attention.keys_values(tokens, self.key_norm)

    def forward(
        self,
        text: Tensor,
        image: Tensor,
        time: Tensor,
        rotary: Rotary,
        attend: Attention,
        reference: KeyValue,
        face: Context,
        audio: Context,
        attend_across: Attention | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return text and image tokens after the layer, each (batch, tokens, width).

        `attend_across` is the attention function of the two cross-attentions; default `attend`.
        """
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
