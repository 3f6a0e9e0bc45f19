"""Work on a large picture or video in overlapping tiles, to need less memory at a time."""

from collections.abc import Callable
from itertools import product
from math import ceil

import torch
from torch import Tensor

from ..network.config import Size


def in_tiles(
    work: Callable[[Tensor], Tensor], x: Tensor, units: Size, sides: Size, overlaps: Size
) -> Tensor:
    """`work` of x (..., height, width) in tiles that fade into one another where they overlap.

    `sides` and `overlaps` (height, width) are in latents; `units` says how many numbers of x, and
    of the result, a latent has a side.
    """
    given, made = units
    size = [side // given for side in x.shape[-2:]]
    sides = [min(side, most) for side, most in zip(sides, size, strict=True)]
    fades = [_fade(side * made, part * made) for side, part in zip(sides, overlaps, strict=True)]
    weight = torch.outer(*fades).to(x.device)
    result, total = None, None
    for corner in product(*map(_starts, size, sides, overlaps)):
        read, write = (
            [
                slice(start * unit, (start + side) * unit)
                for start, side in zip(corner, sides, strict=True)
            ]
            for unit in units
        )
        tile = work(x[..., *read]) * weight
        if result is None:
            shape = [side * made for side in size]
            result, total = tile.new_zeros(*tile.shape[:-2], *shape), weight.new_zeros(shape)
        result[..., *write] += tile
        total[*write] += weight
    return result.div_(total)


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin, so that all of `side` is covered and they overlap by `overlap` or more."""
    if tile >= side:
        return [0]
    gaps = ceil((side - tile) / (tile - overlap))
    return [i * (side - tile) // gaps for i in range(gaps + 1)]


def _fade(side: int, overlap: int) -> Tensor:
    """Weights along a tile: 1 at its ends, and more with each step over the overlap."""
    steps = torch.arange(side, dtype=torch.float32)
    return 1 + torch.minimum(steps, steps.flip(0)).clamp(max=overlap)
