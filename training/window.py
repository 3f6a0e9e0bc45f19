"""Training on a window of the picture: a quarter of its tokens, among them the mouth.

The other tokens cost nothing, as in MaskDiT (Zheng et al., 2023), and the mouth's share of the
tokens is four times larger. Attention is divided as on the whole picture: a quarter of the text
tokens is kept, and all tokens of the reference, which weigh a quarter.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hallo3_core.network.config import LATENT_FRAMES, PATCH, Hallo3Config, Size
from hallo3_core.network.layers import Blend, Context, Rotary, attention, rotary_table
from hallo3_core.network.transformer import Conditions, Tokens, run_layer
from hallo3_core.sampling.guidance import Predict

from .loop import mixed_precision
from .networks import Batch, Networks

SIZE = 4, 6
"""Rows and columns of a window, in tokens."""


class WindowRotary(Rotary):
    """Rotations that differ between examples: `turns` are (batch, 1, tokens, 2, head width)."""

    def rows(self, start: int, count: int) -> Rotary:
        """Rotations for the frames of all examples, one after the other in the batch."""
        turns = self.turns[:, :, start : start + count]
        return Rotary(turns.repeat_interleave(LATENT_FRAMES, dim=0))


@dataclass(frozen=True)
class Window:
    """A window for each example of a batch.

    `corners` (batch, 2) are the row and the column of a window's first token, `text` (kept,) the
    indices of the text tokens that stay, and `size` the rows and columns of a window in tokens.
    """

    config: Hallo3Config
    corners: Tensor
    text: Tensor
    size: tuple[int, int] = SIZE

    def crop(self, latents: Tensor) -> Tensor:
        """Cut the windows out of (batch, channels, frames, height, width)."""
        height, width = (PATCH * side for side in self.size)
        starts = (PATCH * self.corners).tolist()
        rows = zip(latents, starts, strict=True)
        return torch.stack([x[..., y : y + height, z : z + width] for x, (y, z) in rows])

    def spread(self, cropped: Tensor) -> Tensor:
        """The inverse of `crop`, with zeros around the windows."""
        shape = PATCH * self.config.grid[0], PATCH * self.config.grid[1]
        whole = cropped.new_zeros(*cropped.shape[:-2], *shape)
        height, width = cropped.shape[-2:]
        for x, part, (y, z) in zip(whole, cropped, (PATCH * self.corners).tolist(), strict=True):
            x[..., y : y + height, z : z + width] = part
        return whole

    @cached_property
    def cells(self) -> Tensor:
        """(batch, tokens of a frame): indices of the tokens of a frame that are in the window."""
        rows, columns = (torch.arange(side, device=self.corners.device) for side in self.size)
        top, left = self.corners[:, :, None, None].unbind(1)
        return ((top + rows[:, None]) * self.config.grid[1] + left + columns).flatten(1)

    @cached_property
    def places(self) -> Tensor:
        """(batch, tokens): indices of the image tokens that are in the window."""
        frames = torch.arange(LATENT_FRAMES, device=self.cells.device) * self.config.frame_tokens
        return (frames[:, None] + self.cells[:, None]).flatten(1)

    def narrowed(self, context: Context) -> Context:
        """The context with only those weights of a `Blend` that are of tokens in the window."""
        if not isinstance(context, Blend):
            return context
        cells = self.cells.repeat_interleave(LATENT_FRAMES, dim=0)[:, None, :, None]
        return context._replace(weights=tuple(w.gather(2, cells) for w in context.weights))

    @property
    def tokens(self) -> Tokens:
        """The tokens of the denoiser: the window and some text tokens."""
        turns = rotary_table(self.config, LATENT_FRAMES, self.corners.device).turns
        text = turns[self.text].expand(len(self.corners), -1, -1, -1)
        image = turns[self.places + self.config.text_tokens]
        rotary = WindowRotary(torch.cat([text, image], 1)[:, None])

        def select(text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
            places = self.places[..., None].expand(-1, -1, image.shape[-1])
            return text[:, self.text], image.gather(1, places)

        return Tokens(rotary, self.size, select)

    @property
    def reference_tokens(self) -> Tokens:
        """The tokens of the reference network: the whole picture and the same text tokens."""
        turns = rotary_table(self.config, 1, self.corners.device).turns
        rotary = Rotary(torch.cat([turns[self.text], turns[self.config.text_tokens :]]))
        return Tokens(rotary, self.config.grid, lambda text, image: (text[:, self.text], image))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention in which the reference's tokens, which are the last, weigh less."""
        references = self.config.frame_tokens
        if key.shape[2] <= references:  # cross-attention to face or audio
            return attention(query, key, value)
        share = self.size[0] * self.size[1] / references
        weights = key.new_zeros(key.shape[2])
        weights[-references:] = log(share)
        mask = weights.expand(*query.shape[:3], -1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def window_on(
    lips: Tensor, config: Hallo3Config, generator: np.random.Generator, size: Size = SIZE
) -> Window:
    """Random windows that contain the mouths. `lips` (batch, height, width) is 0 outside them."""
    mouths = F.max_pool2d(lips[:, None], PATCH)[:, 0].cpu() > 0
    corners = [
        [start(mouth.any(1 - axis), size[axis], generator) for axis in (0, 1)] for mouth in mouths
    ]
    kept = config.text_tokens * size[0] * size[1] // config.frame_tokens
    text = np.sort(generator.choice(config.text_tokens, kept, replace=False))
    places = torch.tensor(corners), torch.from_numpy(text)
    return Window(config, *(place.to(lips.device) for place in places), size)


def start(shown: Tensor, size: int, generator: np.random.Generator) -> int:
    """First token of a random window that contains `shown` on an axis, or is in its middle."""
    first, last = shown.nonzero()[[0, -1], 0].tolist()
    if last - first >= size:
        return (first + last + 1 - size) // 2
    lowest, highest = max(last + 1 - size, 0), min(first, len(shown) - size)
    return int(generator.integers(lowest, highest + 1))


def conditions_in(networks: Networks, batch: Batch, window: Window) -> Conditions:
    """The conditions of the denoiser for the tokens of a window."""
    features, _ = networks.reference_network(
        batch.reference, attention, networks.text_of(batch), window.reference_tokens
    )
    conditions = networks.conditions(batch, features)
    return replace(conditions, audio=[window.narrowed(each) for each in conditions.audio])


def predict(networks: Networks, batch: Batch, window: Window) -> Tensor:
    """v of the noisy latents in a window, (batch, channels, frames, height, width)."""
    conditions = conditions_in(networks, batch, window)
    run = partial(run_layer, attend=window.attend)
    return networks.denoiser(batch.latents, batch.timesteps, conditions, run, window.tokens)


def conditioned_in(networks: Networks, batch: Batch, window: Window) -> Predict:
    """Predict v of the latents of a window alone, with the conditions of a batch."""
    with mixed_precision():
        conditions = conditions_in(networks, batch, window)
    run = partial(run_layer, attend=window.attend)

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        timesteps, latents = timestep.to(x.device).expand(len(x)), window.spread(x)
        with mixed_precision():
            return networks.denoiser(latents, timesteps, conditions, run, window.tokens).float()

    return predict
