"""Redub: other words for a video. Only the mouth, or the face, is made again.

A square that follows the face is cut out of every frame. It is animated like a square portrait, but
from the latents of the source, and only in a region of it. What comes out is pasted back. Outside
the region, every pixel of the video stays as it is.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..media.picture import to_uint8
from ..network.config import (
    FPS,
    MOTION_FRAMES,
    NEW_FRAMES,
    SEGMENT_FRAMES,
    SPACE_COMPRESSION,
    Size,
)
from ..portrait.encode import Identity, on_canvas
from ..portrait.face_mask import FACE_BOX_GROWTH, box_region, region_box
from ..portrait.faces import Face, Finder, choose, overlap
from ..portrait.framing import Box
from ..portrait.squares import crop, paste
from ..portrait.track import FaceTrack, track_face, track_of_region
from ..sampling.inpainting import Source
from ..speech.dialogue import Dialogue
from ..speech.encode import Speech
from .segments import Animator

REGIONS = {"mouth": (0.12, 0.56, 0.88, 1.14), "face": (-0.12, -0.1, 1.12, 1.2)}
"""Left, top, right and bottom of the regions, as shares of the box of the face.

The chin moves with the mouth, so both regions end below it.
"""
REGION, STRENGTH = "mouth", 0.75
"""The defaults, by measurement (docs/finishing.md)."""
FEATHER = 1 / 32
"""Width of the soft edge of a region, as a share of the square's side."""
GROWTH = 1.7
"""The side of the squares, in heights of the face. A portrait has the face as large as this."""

Frames = Callable[[], Iterable[np.ndarray]]
"""Opens a video and yields its frames (height, width, 3) uint8, at 25 fps."""

logger = logging.getLogger(__name__)


def follow_face(
    frames: Frames, find: Finder, index: int = 0, near: Box | None = None
) -> tuple[Face, FaceTrack]:
    """Find a face in the first frame of a video, and follow it.

    It is the face with this index, or the one that overlaps most with the box `near`. Raises
    `InputError` if the first frame has no face.
    """
    found = find(next(pictures(frames)).movedim(-1, 0))
    if not found:
        raise InputError("No face was found in the first frame of the video: give a mask of it.")
    if near is not None:
        index = max(range(len(found)), key=lambda i: overlap(found[i].box, near))
    face = choose(found, index)
    assert face is not None  # there are faces
    return face, track_face(pictures(frames), find, index)


def still_face(frames: Frames, mask: Tensor) -> tuple[Face, FaceTrack]:
    """A face that is in a mask (height, width) in all frames of a video."""
    return Face(region_box(mask)), track_of_region(mask, sum(1 for _ in frames()))


def pictures(frames: Frames) -> Iterator[Tensor]:
    """The frames of a video, (height, width, 3) in [0, 1]."""
    return (torch.from_numpy(frame) / 255 for frame in frames())


def region_of_face(face: Box, side: int, region: str) -> Tensor:
    """One of `REGIONS` as a mask (side, side) of a square, from the box of the face in it."""
    left, top, right, bottom = face
    shares = REGIONS[region]
    mask = torch.zeros(side, side)
    mask[_span(top, bottom, shares[1::2], side), _span(left, right, shares[::2], side)] = 1
    return mask


def _span(start: float, end: float, shares: tuple[float, ...], length: int) -> slice:
    """The pixels between two shares of the way from `start` to `end`, within `length`."""
    first, last = (round(start + share * (end - start)) for share in shares)
    return slice(min(max(first, 0), length), min(max(last, 0), length))


def soft(mask: Tensor) -> Tensor:
    """A mask (side, side) with a soft edge inside it and inside the square. 0 stays 0."""
    reach = round(FEATHER * len(mask))
    around = F.pad(mask[None, None], [reach] * 4)
    inner = -F.max_pool2d(-around, 2 * reach + 1, 1)
    return F.avg_pool2d(inner, 2 * reach + 1, 1, reach)[0, 0]


class Footage:
    """The source, one segment after the other, and the squares of `side` pixels around its face.

    `frames` are (height, width, 3) uint8, as many as the `track` has. The squares are `GROWTH`
    times as large as those of the track. Raises `InputError` if height or width is odd. One segment
    is in memory:

    - `new` (1 to 47, height, width, 3) uint8: its new frames.
    - `squares` (new frames + 2, side, side, 3) in [0, 1]: the last two of the segment before, then
      its own. The first segment repeats its first frame.
    """

    def __init__(self, frames: Iterable[np.ndarray], track: FaceTrack, side: int):
        self.frames, self.track, self.side = iter(frames), track.grown(GROWTH), side
        self.index, self.start, self.squares = -1, 0, torch.empty(0)
        self.open(0)
        height, width = self.size
        if height % 2 or width % 2:
            raise InputError(
                f"The video has {width} x {height} pixels, and H.264 needs even numbers: crop it."
            )

    def open(self, index: int) -> None:
        """Make segment `index` the one in memory: the same as before, or the next one."""
        if index == self.index:
            return
        assert index == self.index + 1, "segments are read in order"
        self.index, self.start = index, index * NEW_FRAMES
        self.new = torch.from_numpy(np.stack(list(islice(self.frames, NEW_FRAMES))))
        squares = torch.cat(
            [
                crop(frame[None] / 255, self.track, self.start + i, self.side)
                for i, frame in enumerate(self.new)
            ]
        )
        before = self.squares if index else squares[:1].expand(MOTION_FRAMES, -1, -1, -1)
        self.squares = torch.cat([before[-MOTION_FRAMES:], squares])

    @property
    def portrait(self) -> Tensor:
        """The first square, (3, side, side): the picture for the Identity."""
        assert self.index == 0, "the first segment is in memory"
        return self.squares[0].movedim(-1, 0)

    def in_square(self, box: Box) -> Box:
        """A box of the first frame, in pixels of the first square."""
        left, top, right, _ = self.track.box(0)
        scale = self.side / (right - left)
        x, y, to_x, to_y = box
        return (x - left) * scale, (y - top) * scale, (to_x - left) * scale, (to_y - top) * scale

    def face_region(self, face: Box, growth: float = FACE_BOX_GROWTH) -> Tensor:
        """The face region (side, side) for the Identity. See `region`."""
        return box_region(self.in_square(face), (self.side, self.side), growth)

    def region(self, face: Box, name: str = REGION, mask: Tensor | None = None) -> Tensor:
        """What is made again, (side, side): the `mask` of the first frame, or one of `REGIONS`.

        `face` is the box of the face in the first frame. `mask` is (height, width).
        """
        if mask is None:
            return region_of_face(self.in_square(face), self.side, name)
        return (crop(mask[None, ..., None], self.track, 0, self.side)[0, ..., 0] > 0.5).float()

    @property
    def size(self) -> Size:
        height, width = self.new.shape[1:3]
        return height, width

    def with_squares(self, squares: Tensor, mask: Tensor) -> Tensor:
        """The new frames with other `squares` in them where `mask` (side, side) is not 0. uint8."""

        def pasted(number: int, frame: Tensor, square: Tensor) -> Tensor:
            place = frame[None] / 255, square[None], self.track, self.start + number
            return to_uint8(paste(*place, match_colours=0, region=mask))

        pairs = zip(self.new, squares, strict=True)
        return torch.cat([pasted(number, *pair) for number, pair in enumerate(pairs)])


class SourceAnimator(Animator, Protocol):
    """An `Animator` that can also begin with the latents of a source."""

    @property
    def identity(self) -> Identity: ...

    def sample(
        self, index: int, motion: Tensor, seed: int | None = None, source: Source | None = None
    ) -> Tensor: ...

    def encode(self, index: int, frames: Tensor) -> Tensor:
        """Encode all frames of a segment on the canvas, (49, height, width, 3) in [0, 1].

        Returns latents (1, 16, 13, height / 8, width / 8).
        """


@dataclass(frozen=True)
class Redub:
    """An `Animator` that makes a region of a video again.

    `animator` makes the squares. Its identity is that of the first square (`Footage`), with the
    published fit. `region` (side, side) is 1 where the square is made again. `strength`, above 0
    and up to 1, is that of `Source`. The motion frames are those of the new video: the source with
    the new region in it.
    """

    animator: SourceAnimator
    footage: Footage
    region: Tensor
    strength: float = STRENGTH

    def decides(self) -> tuple:
        return "redub", self.animator.decides(), self.region, self.strength

    def prompt(self, index: int) -> tuple:
        """The prompt of segment `index`, its source frames and where the face is in them."""
        self.footage.open(index)
        frames = slice(self.footage.start, self.footage.start + len(self.footage.new))
        boxes = self.footage.track.boxes[frames]
        return self.animator.prompt(index), self.footage.new, self.footage.squares[:2], boxes

    def sample(self, index: int, motion: Tensor, seed: int | None = None) -> Tensor:
        squares = self.footage.squares
        missing = SEGMENT_FRAMES - len(squares)
        squares = torch.cat([squares, squares[-1:].expand(missing, -1, -1, -1)])
        latents = self.animator.encode(index, on_canvas(self.animator.identity, squares))
        source = Source(latents, self.latent_mask, self.strength)
        return self.animator.sample(index, motion, seed, source)

    @property
    def edged(self) -> Tensor:
        """The region with its soft edge, as it is pasted."""
        return soft(self.region)

    @property
    def latent_mask(self) -> Tensor:
        """The region on the grid of the latents, (1, 1, 1, height / 8, width / 8)."""
        canvas = on_canvas(self.animator.identity, self.region[None, ..., None])
        return F.avg_pool2d(canvas.movedim(-1, 1), SPACE_COMPRESSION)[:, :, None]

    def decode(self, index: int, latents: Tensor, count: int) -> Tensor:
        return self.animator.decode(index, latents, count)

    def extend(self, index: int, frames: Tensor) -> Tensor:
        identity = self.animator.identity
        source = on_canvas(identity, self.footage.squares[-MOTION_FRAMES:])
        mask = on_canvas(identity, self.edged[None, ..., None])
        return self.animator.extend(index, torch.lerp(source, frames.to(source), mask))

    def shown(self, frames: Tensor) -> Tensor:
        return self.footage.with_squares(frames, self.edged)


def fitted(speech: Speech | Dialogue, frames: int) -> Speech:
    """A speech as long as a video of so many frames. A warning says if it was not.

    A longer speech is cut, and a shorter one is followed by silence. Raises `InputError` for a
    dialogue.
    """
    if isinstance(speech, Dialogue):
        raise InputError("Redub takes one speech, not a dialogue: connect Encode Speech.")
    lengths = speech.frames / FPS, frames / FPS
    if speech.frames > frames:
        logger.warning(
            "The speech (%.2f s) is longer than the video (%.2f s): its end is cut.", *lengths
        )
    elif speech.frames < frames:
        logger.warning(
            "The speech (%.2f s) is shorter than the video (%.2f s): the rest is silent.", *lengths
        )
    return speech.lasting(frames)
