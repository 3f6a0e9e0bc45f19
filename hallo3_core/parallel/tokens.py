"""Ulysses: the tokens of a denoiser call are cut over several cards (arXiv 2309.14509).

Each card has a part of the text tokens, and the same part of the image tokens of each latent frame.
So everything but self-attention works on its own tokens. For self-attention the cards exchange
their queries, keys and values: each card then has all tokens of a part of the heads. The keys and
values of the reference are constant, so each card keeps only those of its heads.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from ..network.config import LATENT_FRAMES, PATCH, Hallo3Config
from ..network.layers import Context, KeyValue, Rotary, alone, attention
from ..network.transformer import Conditions, Denoiser, DenoiserLayer, Tokens, all_tokens
from .wire import exchange, gather


def parts(count: int, size: int) -> list[slice]:
    """Cut `count` tokens into `size` parts, equal ones or almost."""
    return [slice(count * i // size, count * (i + 1) // size) for i in range(size)]


def length(part: slice) -> int:
    return part.stop - part.start


class Ulysses:
    """Calls a denoiser on the cards of `group`, each with its part of the tokens."""

    def __init__(self, config: Hallo3Config, group: ProcessGroup):
        self.config, self.group = config, group
        self.size, self.rank = group.size(), group.rank()
        self.text = parts(config.text_tokens, self.size)
        self.image = parts(config.frame_tokens, self.size)
        self.counts = [
            length(text) + LATENT_FRAMES * length(image)
            for text, image in zip(self.text, self.image, strict=True)
        ]

    def own_heads(self, keys_values: KeyValue) -> KeyValue:
        """The keys and values of this card's heads."""
        if self.size == 1:
            return keys_values
        key, value = (alone(x.chunk(self.size, dim=1)[self.rank]) for x in keys_values)
        return key, value

    def stripe(self, weights: Tensor | None) -> Tensor | None:
        """The weights (contexts, 13, image tokens) for this card's image tokens."""
        return weights if weights is None else weights[..., self.image[self.rank]]

    def __call__(
        self, denoiser: Denoiser, latents: Tensor, timesteps: Tensor, conditions: Conditions
    ) -> Tensor:
        """Predict v as the denoiser does, on all cards. `conditions` are for this card.

        Their reference is that of `own_heads`, and their weights those of `stripe`.
        """
        if self.size == 1:
            return denoiser(latents, timesteps, conditions)
        return self.joined(denoiser(latents, timesteps, conditions, self.run, self.tokens(latents)))

    def tokens(self, latents: Tensor) -> Tokens:
        """Select this card's tokens."""
        text_part, image_part = self.text[self.rank], self.image[self.rank]

        def select(text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
            frames = image.unflatten(1, (LATENT_FRAMES, -1))[:, :, image_part]
            return text[:, text_part], frames.flatten(1, 2)

        table = all_tokens(self.config, LATENT_FRAMES, latents.device).rotary.turns
        turns = table[None].flatten(2).tensor_split([self.config.text_tokens], dim=1)
        rotary = torch.cat(select(*turns), dim=1)[0].unflatten(1, (2, -1))
        return Tokens(Rotary(rotary), (1, length(image_part)), select)

    def run(
        self,
        index: int,
        layer: DenoiserLayer,
        text: Tensor,
        image: Tensor,
        time: Tensor,
        rotary: Rotary,
        reference: KeyValue,
        face: Context,
        audio: Context,
    ) -> tuple[Tensor, Tensor]:
        """Run a layer. The reference joins when the heads are exchanged, not before."""
        attend = partial(self.attend, reference=reference)
        key, _ = reference
        nothing = key.new_empty(len(key), layer.heads, 0, key.shape[-1])
        contexts = (nothing, nothing), face, audio
        return layer(text, image, time, rotary, attend, *contexts, attend_across=attention)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, reference: KeyValue) -> Tensor:
        """Attention of this card's tokens to those of all cards and to the reference.

        Queries, keys and values are (batch, heads, tokens, head width).
        """
        query, *key_value = self.to_heads(torch.stack([query, key, value]))
        sources = zip(key_value, reference, strict=True)
        return self.to_tokens(attention(query, *(torch.cat(each, dim=2) for each in sources)))

    def to_heads(self, x: Tensor) -> Tensor:
        """Exchange this card's tokens, (3, batch, heads, tokens, width), for those of its heads."""
        sent = x.unflatten(2, (self.size, -1)).movedim(2, 0)
        *outer, count, width = sent.shape[1:]
        each = sent[0].numel() // count
        received = [each * tokens for tokens in self.counts]
        found = exchange(sent.flatten(), [each * count] * self.size, received, self.group)
        pieces = found.split(received)
        return torch.cat([piece.view(*outer, -1, width) for piece in pieces], dim=-2)

    def to_tokens(self, x: Tensor) -> Tensor:
        """Exchange all tokens of this card's heads, (batch, heads, tokens, width), for its own."""
        pieces = [piece.flatten() for piece in x.split(self.counts, dim=2)]
        batch, heads, _, width = x.shape
        shape = self.size, batch, heads, self.counts[self.rank], width
        sent, each = [len(piece) for piece in pieces], batch * heads * shape[3] * width
        found = exchange(torch.cat(pieces), sent, [each] * self.size, self.group)
        return found.view(shape).movedim(0, 1).flatten(1, 2)

    def joined(self, v: Tensor) -> Tensor:
        """Join the v of all cards, each (batch, 16, 13, 2, 2 * tokens): one row of tokens."""
        rows, columns = self.config.grid
        longest = max(map(length, self.image))
        own = F.pad(v, (0, PATCH * longest - v.shape[-1])).contiguous()
        found = zip(gather(own, self.group), self.image, strict=True)
        row = torch.cat([piece[..., : PATCH * length(part)] for piece, part in found], dim=-1)
        # (batch, channels, frames, p, rows, columns, q): p is a row and q a column in a patch
        patches = row.unflatten(-1, (rows, columns, PATCH))
        return patches.movedim(-4, -3).flatten(-2).flatten(-3, -2)
