"""Fades from one segment to the next, so that the video does not jump."""

import torch
from torch import Tensor

from ..network.config import MOTION_FRAMES

FADED_FRAMES = 12
"""The number of new frames over which a segment fades in. The published program has no fade."""


def shown_frames(canvas: Tensor, place: tuple[slice, slice], last: Tensor | None = None) -> Tensor:
    """The new frames of a segment, cut to the picture: (new frames, height, width, 3) in [0, 1].

    `canvas` (frames, canvas height, canvas width, 3) are all decoded frames of the segment. The
    first two repeat the previous segment and are left out. `place` says which rows and columns of
    the canvas to keep. `last` (height, width, 3) is the last frame of the previous segment. If it
    is given, the new frames fade in from it.
    """
    repeated, new = canvas[:, *place].tensor_split([MOTION_FRAMES])
    return new if last is None else fade_in(new, repeated[-1], last.to(new))


def fade_in(frames: Tensor, repeated: Tensor, last: Tensor) -> Tensor:
    """Remove the jump from the previous segment to the new frames.

    `frames` (frames, height, width, 3) are the new frames in [0, 1]. `repeated` and `last`
    (height, width, 3) show the same moment: `repeated` is the last motion frame as decoded in this
    segment, and `last` is the last frame of the previous segment. The difference `last` -
    `repeated` is added to the first `FADED_FRAMES` frames. Its weight falls from 1 to 0 along half
    a cosine, so the fade starts and ends smoothly.
    """
    share = falling_share().to(frames)[: len(frames), None, None, None]
    beginning = frames[:FADED_FRAMES] + share * (last - repeated)
    return torch.cat([beginning.clamp(0, 1), frames[FADED_FRAMES:]])


def fade_out(frames: Tensor, last: Tensor) -> Tensor:
    """End `frames` (frames, height, width, 3) in [0, 1] at the picture `last` (height, width, 3).

    The difference of `last` from the last frame is added to the last `FADED_FRAMES` frames, with a
    weight that rises to 1. What follows `last` then goes on without a jump.
    """
    share = falling_share().flip(0).to(frames)[-len(frames) :, None, None, None]
    share = share / share[-1]
    kept, ending = frames.split([len(frames) - len(share), len(share)])
    ending = ending + share * (last.to(frames) - frames[-1])
    return torch.cat([kept, ending.clamp(0, 1)])


def falling_share() -> Tensor:
    """The weights of a fade over `FADED_FRAMES`, from almost 1 to almost 0."""
    time = torch.arange(1, FADED_FRAMES + 1) / (FADED_FRAMES + 1)
    return (torch.cos(torch.pi * time) + 1) / 2
