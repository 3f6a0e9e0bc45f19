"""Crops the squares of a track out of a video, and pastes them back.

Frames are (frames, height, width, 3) in [0, 1].
"""

from math import ceil, floor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..media.colours import matched
from ..network.config import Size
from .framing import Box
from .track import FaceTrack

CROP_SIZE = 512
FEATHER = 0.15
REACH = 3
"""Lanczos interpolation reaches over this many pixels of the coarser picture."""


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
