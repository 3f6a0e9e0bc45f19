"""Processing of large pictures or videos in overlapping tiles, which takes less memory."""

from collections.abc import Callable, Sequence
from itertools import product
from math import ceil

import torch
from torch import Tensor

from ..network.config import Size

TILE_UNITS = 4
"""The side of a tile divided by its overlap."""
MOST_TILES = 8


def in_tiles(
    work: Callable[[Tensor], Tensor], x: Tensor, units: Size, sides: Size, overlaps: Size
) -> Tensor:
    """Apply `work` to x (..., height, width) tile by tile. Overlapping tiles are blended.

    `sides` and `overlaps` are the height and width of tiles and overlaps, in latents. `units` are
    the values per side of a latent: in x, and in the result.
    """
    given, made = units
    size = [side // given for side in x.shape[-2:]]
    tile_size = [min(side, most) for side, most in zip(sides, size, strict=True)]
    fades = [
        _fade(side * made, part * made) for side, part in zip(tile_size, overlaps, strict=True)
    ]
    weight = torch.outer(*fades).to(x.device)
    total = weight.new_zeros([side * made for side in size])
    result = None
    for top, left in product(*map(_starts, size, tile_size, overlaps)):
        (rows, columns), (to_rows, to_columns) = (
            [
                slice(start * unit, (start + side) * unit)
                for start, side in zip((top, left), tile_size, strict=True)
            ]
            for unit in units
        )
        tile = work(x[..., rows, columns]).mul_(weight)
        if result is None:
            result = tile.new_zeros(*tile.shape[:-2], *total.shape)
        result[..., to_rows, to_columns] += tile
        total[to_rows, to_columns] += weight
        del tile  # frees it before the next one is made
    assert result is not None
    return result.div_(total)


def tiling(size: Sequence[int], tiles: int) -> tuple[Size, Size]:
    """Sides and overlaps (height, width) in latents, if there are `tiles` x `tiles` tiles.

    They cover latents of `size` (height, width), and overlap by a quarter.
    """
    height, width = (TILE_UNITS * ceil(side / ((TILE_UNITS - 1) * tiles)) for side in size)
    return (height, width), (height // TILE_UNITS, width // TILE_UNITS)


def most_tiles(size: Sequence[int]) -> int:
    """The largest number of tiles per side for latents of `size` (height, width)."""
    return max(min(MOST_TILES, min(size) // TILE_UNITS), 1)


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Start positions of tiles that cover `side` and overlap by at least `overlap`."""
    if tile >= side:
        return [0]
    gaps = ceil((side - tile) / (tile - overlap))
    return [i * (side - tile) // gaps for i in range(gaps + 1)]


def _fade(side: int, overlap: int) -> Tensor:
    """Weights along a tile (side,): 1 at both ends, rising by 1 per step across the overlap."""
    steps = torch.arange(side, dtype=torch.float32)
    return 1 + torch.minimum(steps, steps.flip(0)).clamp(max=overlap)
