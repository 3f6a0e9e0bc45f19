"""Keeps the colours of a long video at those of the portrait."""

import torch
from torch import Tensor

from ..media.colours import matched_in_lab
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
    inside, result = frames[:, rows, columns].float(), frames.clone()
    matched = matched_in_lab(inside, portrait[:, rows, columns])
    result[:, rows, columns] = torch.lerp(inside, matched, strength).to(frames)
    return result
