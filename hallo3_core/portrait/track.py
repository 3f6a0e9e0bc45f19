"""Follows one face through a video, crops squares around it, and pastes them back.

Frames are (frames, height, width, 3) in [0, 1]. Boxes are (left, top, right, bottom) in pixels.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d, median_filter
from torch import Tensor

from ..errors import InputError
from ..media.colours import matched
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
CROP_SIZE = 512
FEATHER = 0.15
REACH = 3
"""Lanczos interpolation reaches over this many pixels of the coarser picture."""

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

    def mask(self, index: int, feather: float = FEATHER) -> Tensor:
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
    elsewhere is not taken for it. `find` sees one frame
    in `EVERY`; a head moves little in that time, and the boxes are smoothed over a longer one.
    Without any face, a warning is logged, and the track is the square in the middle. Raises
    `InputError` if there are no frames, or no face with this index.
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


def crop(frames: Tensor, track: FaceTrack, start: int = 0, size: int = CROP_SIZE) -> Tensor:
    """The squares of `frames` (frames, height, width, 3), resized to (frames, size, size, 3).

    The first of the frames is number `start` of the track. Past its edge, the picture goes on as it
    is at the edge. Raises `InputError` if the frames do not fit the track.
    """
    check_frames(frames, track, start)
    return torch.stack(
        [
            _resample(picture.float(), track.box(number), (size, size))
            for number, picture in enumerate(frames, start)
        ]
    )


def paste(
    frames: Tensor,
    crops: Tensor,
    track: FaceTrack,
    start: int = 0,
    *,
    feather: float = FEATHER,
    match_colours: float = 1.0,
    region: Tensor | None = None,
) -> Tensor:
    """Put crops (frames, size, size, 3) of any size back into frames (frames, height, width, 3).

    The first of the frames is number `start` of the track. `feather` is the width of the soft edge,
    as a share of the side of the square. `match_colours` says how far the mean and the spread of
    each colour become those of the frame, 0 to 1. A `region` (side, side) in [0, 1] says how much
    of each pixel of the square is pasted, instead of `feather`. Outside the mask the frames keep
    their values. Raises `InputError` if the frames or the crops do not fit the track.
    """
    check_frames(frames, track, start)
    check_crops(crops, len(frames))
    pasted = frames.clone()
    for number, (picture, square) in enumerate(zip(pasted, crops, strict=True), start):
        rows, columns = track.window(number)
        there = picture[rows, columns].float()
        new = _laid(square, track, number).to(there)
        if region is None:
            mask = track.mask(number, feather)[..., None]
        else:
            mask = _laid(region[..., None], track, number, Image.Resampling.BILINEAR)
        mask = mask.to(there)
        new = torch.lerp(new, matched(new, there, mask).clamp(0, 1), match_colours)
        picture[rows, columns] = torch.lerp(there, new, mask).to(picture)
    return pasted


def check_frames(frames: Tensor, track: FaceTrack, start: int = 0) -> None:
    """Raise `InputError` if frames are not those of the track."""
    if frames.shape[1:3] != track.frame:
        found, wanted = (
            f"{width} x {height}" for height, width in (frames.shape[1:3], track.frame)
        )
        raise InputError(
            f"The frames have {found} pixels, and those that the face was cropped from had "
            f"{wanted}: connect the same frames to Crop Face and to Paste Face."
        )
    if start + len(frames) > len(track):
        raise InputError(
            f"There are more frames than the {len(track)} of the track: connect the same frames to "
            "Crop Face and to Paste Face."
        )


def check_crops(crops: Tensor, count: int) -> None:
    """Raise `InputError` if there are not `count` crops, or if they are not square."""
    if len(crops) != count:
        raise InputError(
            f"There are {len(crops)} crops for {count} frames: what is between Crop Face and Paste "
            "Face must give one picture for each crop."
        )
    height, width = crops.shape[1:3]
    if height != width:
        raise InputError(
            f"The crops have {width} x {height} pixels, but must be square: what is between Crop "
            "Face and Paste Face must keep their shape."
        )


def _laid(
    square: Tensor, track: FaceTrack, number: int, by: Image.Resampling = Image.Resampling.LANCZOS
) -> Tensor:
    """A square (side, side, channels) of any size as it is in the window of the track."""
    rows, columns = track.window(number)
    left, top, right, _ = track.box(number)
    edges = columns.start - left, rows.start - top, columns.stop - left, rows.stop - top
    box = tuple(edge * len(square) / (right - left) for edge in edges)
    size = rows.stop - rows.start, columns.stop - columns.start
    return _resample(square.float(), box, size, by)


def _resample(
    picture: Tensor, box: Box, size: Size, by: Image.Resampling = Image.Resampling.LANCZOS
) -> Tensor:
    """Resize the part of a picture (height, width, channels) in a box to `size`.

    It is smooth when it enlarges and has no aliasing when it reduces. The corners of the box are
    not rounded. Outside the picture, its edge is repeated.
    """
    left, top, right, bottom = box
    spans = []
    for first, last, length, pixels in (
        (top, bottom, picture.shape[0], size[0]),
        (left, right, picture.shape[1], size[1]),
    ):
        reach = ceil(REACH * max((last - first) / pixels, 1)) + 1
        wide = torch.arange(floor(first) - reach, ceil(last) + reach)
        spans.append((wide[0].item(), wide.clamp(0, length - 1).to(picture.device)))
    (above, rows), (before, columns) = spans
    part = picture[rows][:, columns].cpu().movedim(-1, 0).contiguous().numpy()
    place = left - before, top - above, right - before, bottom - above
    resized = [
        np.asarray(Image.fromarray(channel).resize(size[::-1], by, place)) for channel in part
    ]
    return torch.from_numpy(np.stack(resized, axis=-1)).to(picture).clamp(0, 1)
