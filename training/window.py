"""Training on a window of the picture: a quarter of its tokens, with the mouth among them.

Tokens that are left out cost nothing, as in MaskDiT (Zheng et al., 2023), and those that are left
see the mouth four times as often. Attention is shared as it is in the whole: text tokens are
thinned like those of the picture, and the reference's, which all stay, weigh less.
"""

from dataclasses import dataclass
from functools import cached_property
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hallo3_core.network.config import LATENT_FRAMES, PATCH, Hallo3Config
from hallo3_core.network.layers import Rotary, attention, rotary_table

from .networks import Batch, Networks

SIZE = 4, 6
"""Rows and columns, in tokens."""


class WindowRotary(Rotary):
    """Rotations that differ between the examples, (batch, 1, tokens, 2, head width)."""

    def rows(self, start: int, count: int) -> Rotary:
        """For all frames, one after the other in the batch."""
        turns = self.turns[:, :, start : start + count]
        return Rotary(turns.repeat_interleave(LATENT_FRAMES, dim=0))


@dataclass(frozen=True)
class Window:
    """Where examples are looked at: `corners` (batch, 2), row and column of a window's first token;
    `text` (kept,), which text tokens stay; `size`, rows and columns of a window."""

    config: Hallo3Config
    corners: Tensor
    text: Tensor
    size: tuple[int, int] = SIZE

    def crop(self, latents: Tensor) -> Tensor:
        """(batch, channels, frames, height, width) to those of the window."""
        height, width = (PATCH * side for side in self.size)
        starts = (PATCH * self.corners).tolist()
        rows = zip(latents, starts, strict=True)
        return torch.stack([x[..., y : y + height, z : z + width] for x, (y, z) in rows])

    @cached_property
    def places(self) -> Tensor:
        """(batch, tokens): which of all image tokens are in the window."""
        rows, columns = (torch.arange(side, device=self.corners.device) for side in self.size)
        top, left = self.corners[:, :, None, None].unbind(1)
        cells = (top + rows[:, None]) * self.config.grid[1] + left + columns
        frames = torch.arange(LATENT_FRAMES, device=cells.device) * self.config.frame_tokens
        return (frames[:, None] + cells.flatten(1)[:, None]).flatten(1)

    def select(self, image: Tensor) -> Tensor:
        """Of (batch, all image tokens, width)."""
        return image.gather(1, self.places[..., None].expand(-1, -1, image.shape[-1]))

    @property
    def rotary(self) -> WindowRotary:
        turns = rotary_table(self.config, LATENT_FRAMES, self.corners.device).turns
        text = turns[self.text].expand(len(self.corners), -1, -1, -1)
        return WindowRotary(
            torch.cat([text, turns[self.places + self.config.text_tokens]], 1)[:, None]
        )

    @property
    def reference_rotary(self) -> Rotary:
        turns = rotary_table(self.config, 1, self.corners.device).turns
        return Rotary(torch.cat([turns[self.text], turns[self.config.text_tokens :]]))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention in which the reference's tokens, which come last, weigh less."""
        references = self.config.frame_tokens
        if key.shape[2] <= references:  # of a face or of speech
            return attention(query, key, value)
        share = self.size[0] * self.size[1] / references
        weights = key.new_zeros(key.shape[2])
        weights[-references:] = log(share)
        mask = weights.expand(*query.shape[:3], -1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def window_on(lips: Tensor, config: Hallo3Config, generator: np.random.Generator) -> Window:
    """Windows that hold the mouths, (batch, height, width), not 0 in their latent pixels."""
    mouths = F.max_pool2d(lips[:, None], PATCH)[:, 0].cpu() > 0
    corners = [
        [start(mouth.any(1 - axis), SIZE[axis], generator) for axis in (0, 1)] for mouth in mouths
    ]
    kept = config.text_tokens * SIZE[0] * SIZE[1] // config.frame_tokens
    text = np.sort(generator.choice(config.text_tokens, kept, replace=False))
    places = torch.tensor(corners), torch.from_numpy(text)
    return Window(config, *(place.to(lips.device) for place in places))


def start(shown: Tensor, size: int, generator: np.random.Generator) -> int:
    """Of a window that holds what is shown on an axis, or the middle of it."""
    first, last = shown.nonzero()[[0, -1], 0].tolist()
    if last - first >= size:
        return (first + last + 1 - size) // 2
    lowest, highest = max(last + 1 - size, 0), min(first, len(shown) - size)
    return int(generator.integers(lowest, highest + 1))


def predict(networks: Networks, batch: Batch, window: Window) -> Tensor:
    """v of the noisy latents in a window."""
    reference, denoiser = networks.reference_network, networks.denoiser
    latents = torch.cat([batch.reference, batch.reference], dim=1)
    clean = torch.zeros_like(batch.timesteps)
    text, image, time = reference.embed(latents, clean, networks.text_of(batch))
    text, rotary = text[:, window.text], window.reference_rotary
    features = []
    for layer in reference.layers:
        text, image, entering = layer(text, image, time, rotary, attention)
        features.append(entering)

    conditions = networks.conditions(batch, features)
    latents = torch.cat([batch.latents, conditions.motion], dim=1)
    text, image, time = denoiser.embed(latents, batch.timesteps, conditions.text)
    text, image = text[:, window.text], window.select(image)
    rotary = window.rotary
    for layer, *keys_values in denoiser.conditioned_layers(conditions):
        text, image = layer(text, image, time, rotary, window.attend, *keys_values)
    return denoiser.head(image, time, window.size)
