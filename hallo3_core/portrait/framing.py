"""Where a picture goes on the canvas, and what of the canvas the video shows.

Boxes are (left, top, right, bottom) in pixels of the picture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor

import torch.nn.functional as F
from torch import Tensor

from ..network.config import Size

Box = tuple[float, float, float, float]

FACE_SHOWN = 0.9
"""How much of a face's box has to be in the video: the box goes beyond the face by a tenth of its
side, so that the face itself is whole."""


@dataclass(frozen=True)
class Framing:
    """A picture is resized to `size` and laid on the canvas with its corner at `corner`.

    The corner is (row, column) on the canvas, negative where the picture is cropped; what of the
    canvas the picture does not cover is black.
    """

    canvas: Size
    size: Size
    corner: tuple[int, int]
    smooth: bool = True

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that the picture covers, which is what the video shows."""
        return tuple(
            slice(max(start, 0), min(start + length, whole))
            for start, length, whole in zip(self.corner, self.size, self.canvas, strict=True)
        )

    def apply(self, image: Tensor) -> Tensor:
        """(3, height, width) in [0, 1] on the canvas: (1, 3, height, width) in [-1, 1]."""
        mode = "bicubic" if self.smooth else "bilinear"
        resized = F.interpolate(image[None], self.size, mode=mode, antialias=True)
        padding = []
        for start, length, whole in zip(self.corner, self.size, self.canvas, strict=True):
            padding = [start, whole - start - length, *padding]
        laid = F.pad(resized, padding)
        if any(pad > 0 for pad in padding):
            laid = laid.clamp(0, 1)
        return laid * 2 - 1

    def box(self, box: Box, picture: Size) -> Box:
        """A box of the picture, which has the size `picture`, on the canvas."""
        (top, left), (height, width) = self.corner, picture
        tall, wide = self.size[0] / height, self.size[1] / width
        return (
            box[0] * wide + left,
            box[1] * tall + top,
            box[2] * wide + left,
            box[3] * tall + top,
        )

    def share(self, box: Box, picture: Size) -> float:
        """How much of a box of the picture the video shows, 0 to 1."""
        left, top, right, bottom = self.box(box, picture)
        rows, columns = self.place
        width = min(right, columns.stop) - max(left, columns.start)
        height = min(bottom, rows.stop) - max(top, rows.start)
        return max(width, 0) * max(height, 0) / ((right - left) * (bottom - top))

    def keeps(self, face: Box, picture: Size) -> bool:
        """Whether a face of the picture is in the video."""
        return self.share(face, picture) >= FACE_SHOWN


def published(picture: Size, canvas: Size, face: Box | None = None) -> Framing:
    """A square is padded left and right, any other covers the canvas around its centre."""
    if picture[0] != picture[1]:
        return _cover(picture, canvas, (0.5, 0.5))
    height, width = canvas
    return Framing(canvas, (height, height), (0, (width - height) // 2), smooth=False)


def pad(picture: Size, canvas: Size, face: Box | None = None) -> Framing:
    """All of the picture, as large as it fits; the video has its shape, in even pixels."""
    scale = min(canvas[0] / picture[0], canvas[1] / picture[1])
    size = tuple(
        max(2 * round(side * scale / 2), 2) if side * scale < whole - 1 else whole
        for side, whole in zip(picture, canvas, strict=True)
    )
    corner = tuple((whole - side) // 2 for whole, side in zip(canvas, size, strict=True))
    return Framing(canvas, size, corner)


def crop(picture: Size, canvas: Size, face: Box | None = None) -> Framing:
    """The largest part of the picture that fills the canvas, with the face in its middle."""
    if face is None:
        return _cover(picture, canvas, (0.5, 0.5))
    left, top, right, bottom = face
    return _cover(
        picture, canvas, ((top + bottom) / 2 / picture[0], (left + right) / 2 / picture[1])
    )


def _cover(picture: Size, canvas: Size, centre: tuple[float, float]) -> Framing:
    """`centre` (share of the height, of the width) comes to the middle, if the edges allow."""
    (tall, wide), (height, width) = picture, canvas
    if wide * height > width * tall:
        size = (height, wide * height // tall)
    else:
        size = (tall * width // wide, width)
    corner = []
    for side, whole, share in zip(size, canvas, centre, strict=True):
        start = floor(side * share - whole / 2)
        corner.append(-min(max(start, 0), side - whole))
    return Framing(canvas, size, tuple(corner))


def auto(picture: Size, canvas: Size, face: Box | None = None) -> Framing:
    """`published`, or the first of `crop` and `pad` that keeps the face where that would cut it."""
    framings = (fit(picture, canvas, face) for fit in (published, crop, pad))
    return next(fitted for fitted in framings if face is None or fitted.keeps(face, picture))


FIT = "auto"
FITS: dict[str, Callable[[Size, Size, Box | None], Framing]] = {
    "auto": auto,
    "published": published,
    "pad": pad,
    "crop": crop,
}
"""Ways to put a picture of a size, with a face at a box if it is known, on a canvas."""
