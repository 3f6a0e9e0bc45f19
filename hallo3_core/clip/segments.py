"""Makes the segments of a clip, one after the other. Finished ones come from the store."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from torch import Tensor

from ..errors import NotEnoughMemory
from ..media.encoding import STANDARD, Encoding
from ..network.config import MOTION_FRAMES
from ..portrait.encode import Identity
from ..sampling.fade import fade_out, shown_frames
from ..speech.dialogue import Dialogue
from ..speech.encode import Speech
from ..store.clip_store import NOTHING_KEPT, ClipStore
from ..store.segment_store import FinishedSegment
from .edit import WHOLE, Edit


@dataclass(frozen=True)
class Segment:
    """One segment of the video.

    - `latents` (1, 16, 13, height / 8, width / 8), float32.
    - `frames` (frames, height, width, 3) in [0, 1] or uint8: only the new frames that the video
      shows. They are None if the segment comes from the store and the frames were not asked for.
    - `encoding`: how `piece` is encoded.
    - `taken`: whether the segment comes from the store.
    - `kept`: its encoded piece of the video in the store, if it has one.
    """

    index: int
    latents: Tensor
    frames: Tensor | None
    encoding: Encoding = STANDARD
    taken: bool = False
    kept: bytes | None = None

    @cached_property
    def piece(self) -> bytes:
        """The shown frames as an MP4 without sound. No frames are no bytes."""
        if self.kept is not None:
            return self.kept
        assert self.frames is not None  # what is not decoded has a piece
        return self.encoding.encode(self.frames)


class Animator(Protocol):
    """Makes the segments of one clip. Implementations differ in where the networks run."""

    def decides(self) -> tuple:
        """Everything that decides the segments of the clip, except the speech and the prompts."""

    def prompt(self, index: int) -> object:
        """The prompt of segment `index`, or its fingerprint. None if there is no prompt."""

    def sample(self, index: int, motion: Tensor, seed: int | None) -> Tensor:
        """Sample the latents (1, 16, 13, height / 8, width / 8) of segment `index`.

        `motion` are its motion latents. `seed` replaces the seed of the clip.
        """

    def decode(self, index: int, latents: Tensor, count: int) -> Tensor:
        """Decode the first `count` frames of a segment.

        They are the whole canvas, (count, height, width, 3) in [0, 1].
        """

    def extend(self, index: int, frames: Tensor) -> Tensor:
        """Make the motion latents of segment `index`.

        `frames` (2, height, width, 3) are the last frames of the segment before, on the canvas.
        """

    def shown(self, frames: Tensor) -> Tensor:
        """The frames of the video, from the new `frames` (frames, height, width, 3) of a segment.

        It is the segment whose `prompt` was asked for last. The video has the frames as they are,
        unless they are a part of larger frames.
        """


class Ending(NamedTuple):
    """What the next segment needs: name in the store, motion latents, and last frame.

    See `FinishedSegment`. Before the first segment there is no last frame.
    """

    name: str
    motion: Tensor
    last: Tensor | None


class NotContinued(NotEnoughMemory):
    """The device does not have enough memory to go on after `segment`, which is finished."""

    def __init__(self, reason: NotEnoughMemory, segment: Segment):
        super().__init__(*reason.args)
        self.segment = segment


def make_segments(
    animator: Animator,
    identity: Identity,
    speech: Speech | Dialogue,
    kept: ClipStore = NOTHING_KEPT,
    *,
    edit: Edit = WHOLE,
    encoding: Encoding = STANDARD,
    fade: bool = True,
    frames: bool = True,
) -> Iterator[Segment]:
    """Yield the segments of a clip as they are ready. `kept` segments are not computed again.

    Segments before the part that `edit` shows have no frames and an empty piece. If `fade`, each
    segment fades in from the end of the segment before. The published program does not fade. If not
    `frames`, a segment whose piece is kept has no frames. Raises `NotEnoughMemory` if the device
    does not have enough memory.
    """
    clip = _Clip(animator, identity, speech, kept, edit, encoding, fade, frames)
    before = Ending("", identity.motion, None)
    for index in range(edit.segments(speech)):
        seed = edit.seeds.get(index)
        try:
            if seed is not None and edit.stay:
                after = clip.make(index, before)[1]
                segment, _ = clip.make(index, before, seed, into=after)
            else:
                segment, after = clip.make(index, before, seed)
        except NotContinued as error:
            yield error.segment
            raise
        yield segment
        before = after


@dataclass(frozen=True)
class _Clip:
    """The arguments of `make_segments`."""

    animator: Animator
    identity: Identity
    speech: Speech | Dialogue
    kept: ClipStore
    edit: Edit
    encoding: Encoding
    fade: bool
    frames: bool

    def make(
        self, index: int, before: Ending, seed: int | None = None, into: Ending | None = None
    ) -> tuple[Segment, Ending]:
        """Segment `index` after the ending `before`. Its last frames fade over to `into`."""
        decided_by = self.animator.prompt(index), seed, into and into.name
        name = self.kept.name(index, before.name, decided_by)
        found = self.kept.segment(name)
        latents = found.latents if found else self.kept.latents(name)
        if latents is None:
            latents = self.animator.sample(index, before.motion, seed)
            self.kept.put_latents(name, latents)
        shown, count = self.edit.shown(index, self.speech), self.speech.new_frames(index)
        whole = shown == slice(0, count)
        piece = self.kept.piece(name, self.encoding) if found and whole else None
        hidden = shown.start == shown.stop
        if found and (hidden or (piece and not self.frames)):
            segment = Segment(index, latents, None, self.encoding, True, piece or b"")
            return segment, Ending(name, found.motion, found.last)
        canvas = self.animator.decode(index, latents, MOTION_FRAMES + count)
        new = shown_frames(canvas, self.identity.place, before.last if self.fade else None)
        if into and into.last is not None and self.fade:
            new = fade_out(new, into.last)
        pictures = self.animator.shown(new)[shown]
        segment = Segment(index, latents, pictures, self.encoding, bool(found), piece)
        if not found:
            motion = into.motion if into else self._extend(segment, canvas)
            found = FinishedSegment(latents, motion[:, :, :1], new[-1])
            self.kept.put_segment(name, found)
        if whole and piece is None and self.kept.usable:
            self.kept.put_piece(name, self.encoding, segment.piece)
        return segment, Ending(name, found.motion, found.last)

    def _extend(self, segment: Segment, canvas: Tensor) -> Tensor:
        """The motion latents after a segment, empty after the last."""
        following = segment.index + 1
        if following == self.speech.segments:
            return canvas.new_zeros(1, 0, 0, 0, 0)
        try:
            return self.animator.extend(following, canvas[-MOTION_FRAMES:])
        except NotEnoughMemory as error:
            raise NotContinued(error, segment) from error
