"""Keeps the colours of a long video at those of the portrait."""

from torch import Tensor

from ..media.colours import matched
from .encode import Identity


def anchored(frames: Tensor, identity: Identity, strength: float) -> Tensor:
    """Bring the last frames of a segment to the colours of the portrait.

    The next segment continues from the result, so small errors of colour do not add up. `frames`
    (frames, height, width, 3) in [0, 1] are on the canvas. `strength` is 0 (as published) to 1.
    The part of the canvas around the picture does not change.
    """
    if not strength:
        return frames
    rows, columns = identity.place
    portrait = (identity.portrait.movedim(1, -1) + 1) / 2
    result = frames.clone()
    result[:, rows, columns] = matched(
        frames[:, rows, columns], portrait[:, rows, columns], strength
    ).to(frames)
    return result
