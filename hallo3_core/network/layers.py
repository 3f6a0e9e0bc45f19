"""Building blocks of the transformers.

`operations` provides every layer that has parameters. It is `torch.nn`, or a namespace with the
same classes that casts or quantises weights. Attention is a callable, so that a host program can
use its own kernel.
"""

from collections.abc import Callable
from functools import cache
from math import log
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Hallo3Config


class Operations(Protocol):
    """Classes of layers, as in `torch.nn`. Another namespace may cast or quantise their weights."""

    @property
    def Linear(self) -> Callable[..., nn.Module]: ...

    @property
    def Conv1d(self) -> Callable[..., nn.Module]: ...

    @property
    def Conv2d(self) -> Callable[..., nn.Module]: ...

    @property
    def LayerNorm(self) -> Callable[..., nn.Module]: ...


Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
KeyValue = tuple[Tensor, Tensor]
"""Keys and values, each (batch, heads, tokens, head width)."""


class Blend(NamedTuple):
    """Several contexts of a cross-attention: each token gets a weighted sum of what they give.

    Each of `weights` is (batch, 1, tokens, 1), and they add up to 1. `factor` scales the output of
    the cross-attention.
    """

    keys_values: tuple[KeyValue, ...]
    weights: tuple[Tensor, ...]
    factor: float = 1.0


Context = KeyValue | Blend


def mapped(context: Context, change: Callable[[Tensor], Tensor]) -> Context:
    """The context with `change` applied to each of its tensors."""
    if not isinstance(context, Blend):
        key, value = context
        return change(key), change(value)
    keys_values = tuple((change(key), change(value)) for key, value in context.keys_values)
    return Blend(keys_values, tuple(map(change, context.weights)), context.factor)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention without a mask, all tensors (batch, heads, tokens, head width)."""
    return F.scaled_dot_product_attention(query, key, value)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape (batch, tokens, heads * head width) to (batch, heads, tokens, head width)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Reshape (batch, heads, tokens, head width) to (batch, tokens, heads * head width)."""
    return x.transpose(1, 2).flatten(2)


def alone(x: Tensor) -> Tensor:
    """Copy a view of a larger tensor, so that the larger tensor can be freed."""
    return x.clone(memory_format=torch.contiguous_format)


class Modulation(NamedTuple):
    """Shift, scale and gate of an adaptive layer norm, each (batch, 1, width)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, 1 + self.scale)

    def gated(self, x: Tensor, change: Tensor) -> Tensor:
        return torch.addcmul(x, self.gate, change)


class MLP(nn.Module):
    def __init__(self, width: int, operations: Operations, **factory):
        super().__init__()
        self.up = operations.Linear(width, 4 * width, **factory)
        self.down = operations.Linear(4 * width, width, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class CrossAttention(nn.Module):
    """Cross-attention from image tokens to context tokens (face or audio).

    The layer around it owns the norms of queries and keys, and passes them in.
    """

    def __init__(
        self, width: int, context_width: int, heads: int, operations: Operations, **factory
    ):
        super().__init__()
        self.heads = heads
        self.query = operations.Linear(width, width, **factory)
        self.key_value = operations.Linear(context_width, 2 * width, **factory)
        self.out = operations.Linear(width, width, **factory)

    def keys_values(self, context: Tensor, key_norm: nn.Module) -> KeyValue:
        """Return keys and values of `context` (batch, tokens, context width)."""
        key, value = self.key_value(context).chunk(2, dim=-1)
        return key_norm(split_heads(key, self.heads)), alone(split_heads(value, self.heads))

    def forward(
        self,
        x: Tensor,
        context: Context,
        query_norm: nn.Module,
        rotary: "Rotary",
        attend: Attention,
    ) -> Tensor:
        query = rotary(query_norm(split_heads(self.query(x), self.heads)))
        if not isinstance(context, Blend):
            return self.out(merge_heads(attend(query, *context)))
        found = torch.zeros_like(query)
        for keys_values, weight in zip(context.keys_values, context.weights, strict=True):
            found = torch.addcmul(found, weight, attend(query, *keys_values))
        return context.factor * self.out(merge_heads(found))


class Rotary(NamedTuple):
    """Rotary embedding: a rotation for each pair of channels, (tokens, 2, head width), float32.

    Row 0 has the cosine for each channel. Row 1 has the sine, negated for the first channel of a
    pair.
    """

    turns: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate neighbouring channels of x (batch, heads, tokens, head width); keeps the dtype."""
        cosines, sines = self.turns.unbind(-2)
        exact = x.float()
        swapped = exact.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        rotated = swapped.mul_(sines).addcmul_(exact, cosines)
        del exact  # frees it before the result is made
        return rotated.to(x.dtype)

    def rows(self, start: int, count: int) -> "Rotary":
        return Rotary(self.turns[start : start + count])


@cache
@torch.inference_mode(False)
def rotary_table(config: Hallo3Config, frames: int, device: torch.device) -> Rotary:
    """The 3-D rotary table of all tokens: first text, then `frames` latent frames.

    Text tokens are not rotated. A quarter of the head width encodes time. Rows and columns share
    the rest equally.
    """
    rows, columns = config.grid
    time_width = config.head_width // 4
    space_width = (config.head_width - time_width) // 2
    angles = [
        _angles(frames, time_width, device)[:, None, None].expand(-1, rows, columns, -1),
        _angles(rows, space_width, device)[None, :, None].expand(frames, -1, columns, -1),
        _angles(columns, space_width, device)[None, None].expand(frames, rows, -1, -1),
    ]
    image = torch.cat(angles, dim=-1).flatten(0, 2)
    tokens = torch.cat([image.new_zeros(config.text_tokens, image.shape[1]), image])
    cosines, sines = tokens.cos().repeat_interleave(2, -1), tokens.sin()
    return Rotary(torch.stack([cosines, torch.stack([-sines, sines], -1).flatten(-2)], dim=1))


def _angles(positions: int, width: int, device: torch.device) -> Tensor:
    frequencies = 10_000.0 ** -(torch.arange(0, width, 2, device=device).float() / width)
    return torch.arange(positions, device=device).float()[:, None] * frequencies


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps (batch,): (batch, width), float32, cosines first."""
    half = width // 2
    indices = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-log(10_000) * indices / half)
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
