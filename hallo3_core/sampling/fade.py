"""From one segment to the next without a jump."""

import torch
from torch import Tensor

FADED_FRAMES = 12
"""Over so many new frames a segment leaves the colours of the one before; ours, not published."""


def fade_in(frames: Tensor, repeated: Tensor, last: Tensor) -> Tensor:
    """New frames of a segment, without the jump from the segment before.

    `frames` (frames, height, width, 3) in [0, 1]; `repeated` (height, width, 3) is the last motion
    frame as this segment has it, and `last` the same moment as the segment before has it. What
    these differ by is added to the first `FADED_FRAMES`, less and less, along half a cosine: it
    begins and ends to go gently.
    """
    time = torch.arange(1, FADED_FRAMES + 1).to(frames) / (FADED_FRAMES + 1)
    share = (torch.cos(torch.pi * time) + 1) / 2
    beginning = frames[:FADED_FRAMES] + share[: len(frames), None, None, None] * (last - repeated)
    return torch.cat([beginning.clamp(0, 1), frames[FADED_FRAMES:]])
