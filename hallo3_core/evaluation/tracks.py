"""Numbers of every frame of a video, in one pass."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from skimage.color import rgb2lab
from torch import Tensor

from ..errors import InputError
from .likeness import cut_face, distance, outside_mouth
from .reader import FaceReader, read_faces
from .sharpness import cpbd

BATCH = 64
SHARPNESS_EVERY = 10
"""Frames."""
LUMINANCE = np.float32([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Tracks:
    """One entry a frame, NaN where there is none.

    `opening` of the mouth is a share of the face's height; `distance` from the portrait's face is
    in [0, 1]; `colour` (frames, 3) is the face's mean in Lab; `jump` from the frame before and
    `flicker`, the second difference, are mean luminances in 0 to 255; `sharpness` is CPBD, of
    every tenth frame.
    """

    opening: np.ndarray
    distance: np.ndarray
    colour: np.ndarray
    jump: np.ndarray
    flicker: np.ndarray
    sharpness: np.ndarray

    def __len__(self) -> int:
        return len(self.opening)


def track(
    reader: FaceReader, frames: Iterable[np.ndarray], portrait: np.ndarray | None = None
) -> Tracks:
    """Of frames (height, width, 3) uint8; the first stands for a portrait that is not given."""
    frames, parts = iter(frames), []
    watcher = None
    while part := list(islice(frames, BATCH)):
        watcher = watcher or Watcher(reader, part[0] if portrait is None else portrait)
        parts.append(watcher.see(np.stack(part)))
    if not parts:
        raise InputError("The video has no frames: choose another.")
    return Tracks(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


class Watcher:
    """Sees a video part by part, and remembers what the next part is compared with."""

    def __init__(self, reader: FaceReader, portrait: np.ndarray):
        self.reader = reader
        self.frames = 0
        self.portrait, *_ = self.faces(portrait[None])
        self.last: np.ndarray | None = None

    def faces(self, pictures: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """The faces cut out, what is kept of them without the mouth, and the mouth's opening."""
        frames = torch.from_numpy(pictures) / 255
        found = read_faces(self.reader, frames)
        return (
            cut_face(frames, found.face),
            outside_mouth(found.face, found.mouth),
            found.opening,
        )

    def see(self, pictures: np.ndarray) -> Tracks:
        count = len(pictures)
        faces, kept, opening = self.faces(pictures)
        grey = pictures @ LUMINANCE
        known = grey if self.last is None else np.concatenate([self.last, grey])
        first = -self.frames % SHARPNESS_EVERY
        sharpness = np.full(count, np.nan)
        sharpness[first::SHARPNESS_EVERY] = [cpbd(g) for g in grey[first::SHARPNESS_EVERY]]
        self.last = known[-2:]
        self.frames += count
        return Tracks(
            opening.numpy(),
            distance(faces, self.portrait, kept).numpy(),
            rgb2lab(faces.mean((2, 3)).numpy()),
            _ending(np.abs(np.diff(known, axis=0)).mean((1, 2)), count),
            _ending(np.abs(np.diff(known, n=2, axis=0)).mean((1, 2)), count),
            sharpness,
        )


def _ending(values: np.ndarray, count: int) -> np.ndarray:
    """The last `count` of them, with NaN before them if they are fewer."""
    return np.pad(values, (max(count - len(values), 0), 0), constant_values=np.nan)[-count:]
