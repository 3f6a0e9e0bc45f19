"""Faces in a picture: which of them speaks, and how they are shown.

Pictures are (3, height, width) in [0, 1]. Boxes are (left, top, right, bottom) in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import InputError
from ..media.picture import to_bytes
from .framing import Box

SAME = 0.4
"""Boxes that overlap more than this are of one face."""


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    `box` is the box around the oval of the face. `score` is the detector's confidence.
    `embedding` is (1, 512) float32. Both are None without InsightFace.
    """

    box: Box
    score: float | None = None
    embedding: Tensor | None = None

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def overlap(box: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, other)]
    return shared / (sum(areas) - shared)


Finder = Callable[[Tensor], list[Face]]
"""A function that finds the faces in a picture (3, height, width), the largest first."""


def largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -face.area)


def choose(faces: list[Face], index: int) -> Face | None:
    """The face with this index; 0 is the largest. None if there are no faces.

    Raises `InputError` if the index is negative or too large.
    """
    if index < 0:
        raise InputError(f"There is no face {index}: the largest is 0, the others follow.")
    if not faces:
        return None
    if index >= len(faces):
        found = (
            "only one was found, which is 0"
            if len(faces) == 1
            else f"{len(faces)} were found, from 0 to {len(faces) - 1}, the largest first"
        )
        raise InputError(f"There is no face {index}: {found}.")
    return faces[index]


def draw(picture: Tensor, faces: list[Face], chosen: int) -> Tensor:
    """Draw the boxes, indices and scores of the faces into the picture, the chosen face in green.

    (3, height, width) in [0, 1].
    """
    image = Image.fromarray(to_bytes(picture))
    pen = ImageDraw.Draw(image)
    size = max(min(image.size) // 25, 10)
    for index, face in enumerate(faces):
        colour = "lime" if index == chosen else "orange"
        pen.rectangle(face.box, outline=colour, width=max(size // 8, 2))
        label = f"{index}" if face.score is None else f"{index}: {face.score:.2f}"
        pen.text(face.box[:2], label, fill=colour, font_size=size, anchor="lb")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
