"""Building blocks of the transformers.

Every layer that has parameters is made from `operations`: `torch.nn`, or a namespace with the
same classes that casts or quantises weights. Attention is a callable, so that a host can bring
its own kernel.
"""

from collections.abc import Callable
from functools import cache
from math import log
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Hallo3Config

Operations = ModuleType | type
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
KeyValue = tuple[Tensor, Tensor]
"""Keys and values, each (batch, heads, tokens, head width)."""


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over (batch, heads, tokens, head width), not causal, no mask."""
    return F.scaled_dot_product_attention(query, key, value)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, heads * head width) to (batch, heads, tokens, head width)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def alone(x: Tensor) -> Tensor:
    """A part of a tensor that is to be kept, without the rest of it."""
    return x.clone(memory_format=torch.contiguous_format)


class Modulation(NamedTuple):
    """Shift, scale and gate of an adaptive norm, each (batch, 1, width)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, 1 + self.scale)

    def gated(self, x: Tensor, change: Tensor) -> Tensor:
        return torch.addcmul(x, self.gate, change)


class ScaledLinear(nn.Linear):
    """A linear layer whose weight is kept in fp8, to be multiplied by `weight_scale`."""

    def __init__(self, inputs: int, outputs: int, bias: bool, **factory):
        super().__init__(inputs, outputs, bias, **factory)
        self.register_buffer("weight_scale", torch.ones((), device=self.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float().mul_(self.weight_scale).to(x.dtype)
        return F.linear(x, weight, self.bias)


class MLP(nn.Module):
    def __init__(self, width: int, operations: Operations, **factory):
        super().__init__()
        self.up = operations.Linear(width, 4 * width, **factory)
        self.down = operations.Linear(4 * width, width, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class CrossAttention(nn.Module):
    """Queries from image tokens, keys and values from tokens of another kind.

    The norms of queries and keys belong to the layer around it and are handed in.
    """

    def __init__(self, width: int, context_width: int, heads: int, operations, **factory):
        super().__init__()
        self.heads = heads
        self.query = operations.Linear(width, width, **factory)
        self.key_value = operations.Linear(context_width, 2 * width, **factory)
        self.out = operations.Linear(width, width, **factory)

    def keys_values(self, context: Tensor, key_norm: nn.Module) -> KeyValue:
        """Keys and values of (batch, tokens, context width)."""
        key, value = self.key_value(context).chunk(2, dim=-1)
        return key_norm(split_heads(key, self.heads)), alone(split_heads(value, self.heads))

    def forward(
        self,
        x: Tensor,
        keys_values: KeyValue,
        query_norm: nn.Module,
        rotary: "Rotary",
        attend: Attention,
    ) -> Tensor:
        query = rotary(query_norm(split_heads(self.query(x), self.heads)))
        return self.out(merge_heads(attend(query, *keys_values)))


class Rotary(NamedTuple):
    """A rotation for each pair of a head's numbers, (tokens, 2, head width), float32.

    The first row has the cosine for each number, the second the sine, negative for the first of a
    pair.
    """

    turns: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate the neighbouring pairs of (batch, heads, tokens, head width)."""
        cosines, sines = self.turns.unbind(-2)
        swapped = x.float().unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return swapped.mul_(sines).addcmul_(x.float(), cosines).to(x.dtype)

    def rows(self, start: int, count: int) -> "Rotary":
        return Rotary(self.turns[start : start + count])


@cache
@torch.inference_mode(False)
def rotary_table(config: Hallo3Config, frames: int, device: torch.device) -> Rotary:
    """The 3-D rotary table of the text tokens, which are not rotated, and of `frames` of images.

    A quarter of the head's width rotates with time; rows and columns share the rest.
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
    angles = torch.cat([image.new_zeros(config.text_tokens, image.shape[1]), image])
    cosines, sines = angles.cos().repeat_interleave(2, -1), angles.sin()
    return Rotary(torch.stack([cosines, torch.stack([-sines, sines], -1).flatten(-2)], dim=1))


def _angles(positions: int, width: int, device) -> Tensor:
    frequencies = 10_000.0 ** -(torch.arange(0, width, 2, device=device).float() / width)
    return torch.arange(positions, device=device).float()[:, None] * frequencies


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoids of (batch,) timesteps, cosines first: (batch, width), float32."""
    half = width // 2
    indices = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-log(10_000) * indices / half)
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
