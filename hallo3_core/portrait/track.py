"""Follows one face through a video. Boxes are (left, top, right, bottom) in pixels."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, median_filter
from torch import Tensor

from ..errors import InputError
from ..network.config import Size
from .face_mask import region_box
from .faces import Face, Finder, choose, overlap
from .framing import Box

EVERY = 5
"""A face is looked for in one of this many frames, and in the last one."""
SMOOTHING = 5.0
"""The standard deviation of the Gaussian that smooths a track, in frames."""
SEEN = 5
"""The side of a face is the median of so many boxes: at times a detector sees a part of it only."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaceTrack:
    """Where a face is in each frame of a video.

    - `boxes` (frames, 4) float32: the square around the face, as left, top, right and bottom in
      pixels. It may reach past the edge of the picture.
    - `frame`: height and width of the video.
    """

    boxes: Tensor
    frame: Size

    def __len__(self) -> int:
        return len(self.boxes)

    def grown(self, factor: float) -> "FaceTrack":
        """The track with squares that are `factor` times as wide, around the same centres."""
        centre = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        half = (self.boxes[:, 2:] - self.boxes[:, :2]) / 2 * factor
        return FaceTrack(torch.cat([centre - half, centre + half], 1), self.frame)

    def box(self, index: int) -> Box:
        left, top, right, bottom = self.boxes[index].tolist()
        return left, top, right, bottom

    def window(self, index: int) -> tuple[slice, slice]:
        """The rows and columns of the picture whose pixels have their centre in the square.

        There is at least one of each.
        """
        left, top, right, bottom = self.box(index)
        parts = []
        for first, last, length in zip((top, left), (bottom, right), self.frame, strict=True):
            start = min(max(floor(first + 0.5), 0), length - 1)
            parts.append(slice(start, max(min(ceil(last - 0.5), length), start + 1)))
        return parts[0], parts[1]

    def mask(self, index: int, feather: float) -> Tensor:
        """How much of the crop is pasted at each pixel of the window, (rows, columns).

        It rises from 0 at the edge of the square to 1, over `feather` times the side of the square.
        Outside the window it is 0.
        """
        left, top, right, bottom = self.box(index)
        profiles = []
        for (first, last), part in zip(
            ((top, bottom), (left, right)), self.window(index), strict=True
        ):
            centres = torch.arange(part.start, part.stop) + 0.5
            inside = torch.minimum(centres - first, last - centres)
            share = (inside / max(feather * (last - first), 1e-6)).clamp(0, 1)
            profiles.append(share * share * (3 - 2 * share))
        return profiles[0][:, None] * profiles[1]


def track_face(frames: Iterable[Tensor], find: Finder, index: int = 0) -> FaceTrack:
    """Follow the face `index` through pictures (height, width, 3) in [0, 1].

    The index counts the faces of the first frame that has any, the largest first. In the later
    frames, the face is the one whose box overlaps most with the box before; one that comes back
    elsewhere is not taken for it. `find` sees one frame in `EVERY`; a head moves little in that
    time, and the boxes are smoothed over a longer one. Without any face, a warning is logged, and
    the track is the square in the middle. Raises `InputError` if there are no frames, or no face
    with this index.
    """
    found: dict[int, list[Face]] = {}
    count, picture = 0, None
    for picture in frames:
        if count % EVERY == 0:
            found[count] = find(picture.movedim(-1, 0))
        count += 1
    if picture is None:
        raise InputError("The video has no frames: choose another video.")
    if count - 1 not in found:
        found[count - 1] = find(picture.movedim(-1, 0))
    boxes: list[Box | None] = [None] * count
    for number, box in zip(found, follow(found.values(), index), strict=True):
        boxes[number] = box
    height, width = picture.shape[:2]
    return track_of_boxes(boxes, (height, width))


def follow(found: Iterable[list[Face]], index: int = 0) -> list[Box | None]:
    """The box of one face in each list of faces. None where it is missing.

    See `track_face` for which face it is. Raises `InputError` if there is no face with this index.
    """
    boxes: list[Box | None] = []
    last: Box | None = None
    for faces in found:
        face = choose(faces, index) if last is None else nearest(faces, last)
        boxes.append(face.box if face else None)
        last = face.box if face else last
    return boxes


def nearest(faces: list[Face], box: Box) -> Face | None:
    """The face whose box overlaps most with `box`. None if no face does."""
    near = [face for face in faces if overlap(face.box, box) > 0]
    return max(near, key=lambda face: overlap(face.box, box), default=None)


def track_of_boxes(boxes: Sequence[Box | None], frame: Size) -> FaceTrack:
    """The track of the box of a face in every frame of a video of size `frame`.

    A box that is None is missing: it is interpolated. The squares have the longer side of the
    boxes. They are smoothed over time, without a lag. If all boxes are missing, a warning is
    logged, and the track is the square in the middle.
    """
    known = [number for number, box in enumerate(boxes) if box is not None]
    if not known:
        logger.warning(
            "No face was found: the square in the middle of the picture is used. Connect boxes or "
            "a mask of the face."
        )
        return track_of_region(torch.ones(frame), len(boxes))
    left, top, right, bottom = np.array([boxes[number] for number in known], np.float64).T
    longer = median_filter(np.maximum(right - left, bottom - top), SEEN, mode="nearest")
    x, y, side = (
        smooth(np.interp(range(len(boxes)), known, values))
        for values in ((left + right) / 2, (top + bottom) / 2, longer)
    )
    return _of_squares(x, y, np.maximum(side, 1), frame)


def track_of_region(region: Tensor, frames: int) -> FaceTrack:
    """The track of a face that stays in a region (height, width) for so many frames.

    The square has the shorter side of the picture at most.
    """
    left, top, right, bottom = region_box(region)
    height, width = region.shape
    side = min(max(right - left, bottom - top), height, width)
    x, y, sides = (
        np.full(frames, value) for value in ((left + right) / 2, (top + bottom) / 2, side)
    )
    return _of_squares(x, y, sides, (height, width))


def _of_squares(x: np.ndarray, y: np.ndarray, side: np.ndarray, frame: Size) -> FaceTrack:
    half = side / 2
    boxes = np.stack([x - half, y - half, x + half, y + half], axis=1)
    return FaceTrack(torch.from_numpy(boxes).float(), frame)


def smooth(values: np.ndarray) -> np.ndarray:
    """Smooth values over time, (frames,), without a lag.

    What the Gaussian takes away is smoothed too and added again (Tukey's twicing). So a curve of
    third degree stays as it is. At both ends the values are continued by a reflection through the
    last value, which keeps the speed.
    """
    ends = round(8 * SMOOTHING)
    longer = np.pad(values, ends, mode="reflect", reflect_type="odd")
    once = gaussian_filter1d(longer, SMOOTHING, mode="nearest")
    twice = once + gaussian_filter1d(longer - once, SMOOTHING, mode="nearest")
    return twice[ends : ends + len(values)]
