"""Places a picture on the canvas, and says which part of the canvas the video shows.

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
"""The share of the face box that must be in the video.

The box is larger than the face by a tenth of its side. So at this share the face is whole.
"""


@dataclass(frozen=True)
class Framing:
    """The place of a picture on the canvas.

    The picture is resized to `size` (height, width). Its top left corner is at `corner`
    (row, column) of the canvas. A negative number crops the picture. The rest of the canvas is
    black. `smooth` resizes by bicubic interpolation instead of bilinear.
    """

    canvas: Size
    size: Size
    corner: tuple[int, int]
    smooth: bool = True

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of the canvas that the picture covers. The video shows these."""
        rows, columns = (
            slice(max(start, 0), min(start + length, whole))
            for start, length, whole in zip(self.corner, self.size, self.canvas, strict=True)
        )
        return rows, columns

    def apply(self, image: Tensor) -> Tensor:
        """Put a picture (3, height, width) in [0, 1] on the canvas.

        Returns (1, 3, height, width) in [-1, 1].
        """
        mode = "bicubic" if self.smooth else "bilinear"
        resized = F.interpolate(image[None], self.size, mode=mode, antialias=True)
        padding: list[int] = []
        for start, length, whole in zip(self.corner, self.size, self.canvas, strict=True):
            padding = [start, whole - start - length, *padding]
        laid = F.pad(resized, padding)
        if any(pad > 0 for pad in padding):
            laid = laid.clamp(0, 1)
        return laid * 2 - 1

    def lay(self, region: Tensor) -> Tensor:
        """Put a region (height, width) in [0, 1] of the picture on the canvas.

        Around the picture, the region goes on as it is at the edge. The numbers are rounded to
        those of a mask of 8 bits.
        """
        laid = F.interpolate(region[None, None], self.size, mode="bilinear", antialias=True)
        padding: list[int] = []
        for axis, start, length, whole in zip(
            (2, 3), self.corner, self.size, self.canvas, strict=True
        ):
            first = max(-start, 0)
            laid = laid.narrow(axis, first, min(length - first, whole - max(start, 0)))
            padding = [max(start, 0), max(whole - start - length, 0), *padding]
        laid = F.pad(laid, padding, mode="replicate")[0, 0]
        return (laid * 255).round() / 255

    def box(self, box: Box, picture: Size) -> Box:
        """Convert a box of a picture of size `picture` to a box of the canvas."""
        (top, left), (height, width) = self.corner, picture
        tall, wide = self.size[0] / height, self.size[1] / width
        return (
            box[0] * wide + left,
            box[1] * tall + top,
            box[2] * wide + left,
            box[3] * tall + top,
        )

    def share(self, box: Box, picture: Size) -> float:
        """The share of a box of the picture that the video shows, 0 to 1."""
        left, top, right, bottom = self.box(box, picture)
        rows, columns = self.place
        width = min(right, columns.stop) - max(left, columns.start)
        height = min(bottom, rows.stop) - max(top, rows.start)
        return max(width, 0) * max(height, 0) / ((right - left) * (bottom - top))

    def keeps(self, face: Box, picture: Size) -> bool:
        """Whether the video shows at least `FACE_SHOWN` of the face box."""
        return self.share(face, picture) >= FACE_SHOWN


def filling(canvas: Size) -> Framing:
    """A picture that has the size of the canvas."""
    return Framing(canvas, canvas, (0, 0))


def published(picture: Size, canvas: Size, face: Box | None = None) -> Framing:
    """The published fit: square pictures are padded left and right, others cover the canvas."""
    if picture[0] != picture[1]:
        return _cover(picture, canvas, (0.5, 0.5))
    height, width = canvas
    return Framing(canvas, (height, height), (0, (width - height) // 2), smooth=False)


def pad(picture: Size, canvas: Size, face: Box | None = None) -> Framing:
    """The whole picture, as large as it fits. The video has its aspect ratio and even sides."""
    scale = min(canvas[0] / picture[0], canvas[1] / picture[1])
    height, width = (
        max(2 * round(side * scale / 2), 2) if side * scale < whole - 1 else whole
        for side, whole in zip(picture, canvas, strict=True)
    )
    corner = (canvas[0] - height) // 2, (canvas[1] - width) // 2
    return Framing(canvas, (height, width), corner)


def crop(picture: Size, canvas: Size, face: Box | None = None) -> Framing:
    """The largest part of the picture that fills the canvas, with the face in its middle."""
    if face is None:
        return _cover(picture, canvas, (0.5, 0.5))
    left, top, right, bottom = face
    return _cover(
        picture, canvas, ((top + bottom) / 2 / picture[0], (left + right) / 2 / picture[1])
    )


def _cover(picture: Size, canvas: Size, centre: tuple[float, float]) -> Framing:
    """Cover the canvas, with `centre` as near to its middle as the edges of the picture allow.

    `centre` is (row, column) as shares of the picture's height and width.
    """
    (tall, wide), (height, width) = picture, canvas
    if wide * height > width * tall:
        size = (height, wide * height // tall)
    else:
        size = (tall * width // wide, width)
    corner = []
    for side, whole, share in zip(size, canvas, centre, strict=True):
        start = floor(side * share - whole / 2)
        corner.append(-min(max(start, 0), side - whole))
    row, column = corner
    return Framing(canvas, size, (row, column))


def auto(picture: Size, canvas: Size, face: Box | None = None) -> Framing:
    """The first of `published`, `crop` and `pad` that keeps the face in the video."""
    framings = (fit(picture, canvas, face) for fit in (published, crop, pad))
    return next(fitted for fitted in framings if face is None or fitted.keeps(face, picture))


FIT = "auto"
FITS: dict[str, Callable[[Size, Size, Box | None], Framing]] = {
    "auto": auto,
    "published": published,
    "pad": pad,
    "crop": crop,
}
"""The ways to place a picture on a canvas: (picture size, canvas size, face box or None)."""
