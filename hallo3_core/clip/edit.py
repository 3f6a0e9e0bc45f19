"""What the user wants of a clip: a part of it, or another take of single segments."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from ..errors import InputError
from ..network.config import FPS, NEW_FRAMES, segment_count
from ..sound.sound import Sound
from ..speech.dialogue import Dialogue
from ..speech.encode import Speech

SEED = re.compile(r"\s*(\d+)\s*:\s*(\d+)\s*,?")
EXAMPLE = "2:17 5:8"


@dataclass(frozen=True)
class Edit:
    """The frames `first` up to `stop` of a clip, and the `seeds` of single segments.

    A segment that is not in `seeds` has the seed of the clip. If `stay`, what follows a segment
    with another seed stays as it is without that seed, and the segment fades over to it. Otherwise
    it continues from the new take. Without `stop`, the clip goes to its end.
    """

    seeds: Mapping[int, int] = field(default_factory=dict)
    stay: bool = False
    first: int = 0
    stop: int | None = None

    def segments(self, speech: Speech | Dialogue) -> int:
        """How many segments are made. Those before the first frame lead to it."""
        return segment_count(self.end(speech))

    def end(self, speech: Speech | Dialogue) -> int:
        """The frame after the last."""
        return speech.frames if self.stop is None else min(self.stop, speech.frames)

    def shown(self, index: int, speech: Speech | Dialogue) -> slice:
        """The new frames of segment `index` that are wanted. It may be empty."""
        begin, count = index * NEW_FRAMES, speech.new_frames(index)
        start = min(max(self.first - begin, 0), count)
        return slice(start, max(min(self.end(speech) - begin, count), start))

    def heard(self, sound: Sound, speech: Speech | Dialogue) -> Sound:
        """The part of the clip's sound that belongs to the wanted frames."""
        if self.first == 0 and self.stop is None:
            return sound
        return Sound(sound.cut(self.first / FPS, self.end(speech) / FPS), sound.rate)


WHOLE = Edit()


def edit_of(
    speech: Speech | Dialogue, seeds: str = "", stay: bool = False, start: float = 0, end: float = 0
) -> Edit:
    """The edit that the user asks for. `start` and `end` are seconds; 0 is the end of the speech.

    Raises `InputError` if the part has no frames, or if a seed is for a segment that does not
    exist.
    """
    first, stop = (round(seconds * FPS) if isfinite(seconds) else -1 for seconds in (start, end))
    last = stop or speech.frames
    if not 0 <= first < min(last, speech.frames):
        raise InputError(
            f"A video of {speech.frames / FPS:g} s has no frames from {start:g} s to "
            f"{end or speech.frames / FPS:g} s: choose a start before the end."
        )
    edit = Edit(read_seeds(seeds), stay, first, stop or None)
    for index in edit.seeds:
        if index >= speech.segments:
            raise InputError(
                f"There is no segment {index}: the video has {speech.segments}, from 0 to "
                f"{speech.segments - 1}."
            )
    return edit


def read_seeds(text: str) -> dict[int, int]:
    """Read segments and their seeds, such as 2:17 5:8. Raises `InputError` for other texts."""
    if SEED.sub("", text).strip():
        raise InputError(
            f"The seeds of segments are '{text}': write the number of a segment, a colon and its "
            f"seed, such as {EXAMPLE}."
        )
    found = [(int(index), int(seed)) for index, seed in SEED.findall(text)]
    for index, seed in found:
        if seed >= 2**64:
            raise InputError(
                f"The seed {seed} of segment {index} is too large: take a shorter one."
            )
    return dict(found)
