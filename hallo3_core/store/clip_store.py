"""The finished segments of one clip: the name of each is a hash of everything that decides it."""

from pathlib import Path

import av
from torch import Tensor

from ..media.encoding import Encoding
from ..network.config import AUDIO_WINDOW, FPS, MOTION_FRAMES, NEW_FRAMES
from ..speech.dialogue import Dialogue
from ..speech.encode import Speech
from .fingerprint import fingerprint
from .segment_store import FinishedSegment, SegmentStore

FORMAT = 3
"""Increase this number when the same settings give a different video."""
HEARD_AROUND = FPS
"""Frames. The sound this long before and after a segment also decides it."""


class ClipStore:
    """The segments of one clip in a store.

    `clip` is the fingerprint of everything that decides its segments, except the speech and the
    prompts.
    """

    def __init__(self, store: SegmentStore, clip: str, speech: Speech | Dialogue | None = None):
        self.store, self.clip, self.speech = store, clip, speech

    @property
    def usable(self) -> bool:
        return self.store.usable

    def name(self, index: int, before: str, own: object = None) -> str:
        """The name of segment `index`. `before` is the name of the segment before it.

        `own` is what decides this segment alone: its encoded prompt, its seed, ... The name is
        empty if the store is not usable.
        """
        if not self.usable or self.speech is None:
            return ""
        length = self.speech.new_frames(index), index + 1 == self.speech.segments
        heard = heard_by(self.speech, index)
        return fingerprint((FORMAT, self.clip, before, index, length, heard, own))

    def segment(self, name: str) -> FinishedSegment | None:
        return self.store.segment(name)

    def latents(self, name: str) -> Tensor | None:
        return self.store.latents(name)

    def put_segment(self, name: str, segment: FinishedSegment) -> None:
        self.store.put_segment(name, segment)

    def put_latents(self, name: str, latents: Tensor) -> None:
        self.store.put_latents(name, latents)

    def piece(self, name: str, encoding: Encoding) -> bytes | None:
        return self.store.piece(piece_name(name, encoding))

    def put_piece(self, name: str, encoding: Encoding, piece: bytes) -> None:
        self.store.put_piece(piece_name(name, encoding), piece)


NOTHING_KEPT = ClipStore(SegmentStore(Path(), size=0), "")
"""Saves nothing. For a clip that should not be saved, or has no fingerprint."""


def piece_name(segment: str, encoding: Encoding) -> str:
    """The name of a segment's piece. Pieces of another version of FFmpeg do not fit together."""
    return fingerprint((segment, encoding, av.__version__))


def heard_by(speech: Speech | Dialogue, index: int) -> tuple:
    """The part of a speech, or of all speeches of a dialogue, that decides a segment."""
    if isinstance(speech, Dialogue):
        return tuple(
            (said_by(speaker.speech, index, speaker.start), speaker.region, speaker.face)
            for speaker in speech.speakers
        )
    return said_by(speech, index)


def said_by(speech: Speech, index: int, begin: int = 0) -> tuple:
    """The part of one speech that decides a segment, if the speech begins at the frame `begin`.

    If the sound is known, it is the sound of the segment and of a second before and after it. The
    features are not used then: they also depend a little on sound that is far away. If the sound is
    not known, it is the features of the segment.
    """
    around = AUDIO_WINDOW // 2 if speech.sound is None else HEARD_AROUND
    start = index * NEW_FRAMES - MOTION_FRAMES - around - begin
    stop = (index + 1) * NEW_FRAMES + around - begin
    before = min(max(-start, 0), stop - start)  # frames
    shown = slice(max(start, 0), max(stop, 0))
    strength = () if speech.strength is None else (speech.strength[shown],)
    if speech.sound is None:
        return before, speech.features[shown], *strength
    rate = speech.sound.rate
    samples = slice(shown.start * rate // FPS, shown.stop * rate // FPS)
    return before, speech.encoder, rate, speech.sound.waveform[:, samples], *strength
