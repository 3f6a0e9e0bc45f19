"""Shows what a node is doing and how long it will take: as text, as a bar and in the log."""

import logging
from typing import ClassVar

import comfy.utils
from torch import Tensor

from ...hallo3_core.media.progress import TimeLeft, in_words
from .previews import shown
from .say import say, show

logger = logging.getLogger(__name__)


class ClipTime(TimeLeft):
    """Tells the user the progress of a clip of `segments`.

    `decoding`, the seconds to decode a segment, must be set before the first segment is sampled.
    `bar` is the node's progress bar. It counts the steps of all segments. `of_a_segment` is the
    seconds that a segment of the last clip took, or None.
    """

    of_a_segment: ClassVar[float | None] = None

    def __init__(self, segments: int, steps: int, decoding: float = 0):
        super().__init__(segments, steps, decoding)
        self.began, self.taken = self.clock(), 0
        self.bar = comfy.utils.ProgressBar(segments * steps)

    def step(self) -> None:
        super().step()
        if self.step_times[1:]:
            self._say(f"sampling, {in_words(self.seconds)} left")

    def decode(self) -> None:
        """Say that sampling is done, and that the segment is being decoded."""
        self._say("decoding")

    def finish(self, frame: Tensor) -> None:
        """Count a decoded segment, and show its last frame (height, width, 3)."""
        self.segment()
        self.bar.update_absolute(self.steps_done, preview=shown(frame))

    def take(self, segment: int) -> None:
        """Count a segment that was finished in an earlier run."""
        self.taken += 1
        self.start(segment + 1)
        self.bar.update_absolute(self.steps_done)

    def done(self, what: str) -> None:
        """Say that all is done. The line begins with `what`, such as "sampled"."""
        if self.decoding_times:
            ClipTime.of_a_segment = (self.clock() - self.began) / len(self.decoding_times)
        line = f"{what} in {in_words(self.clock() - self.began)}"
        if self.taken:
            line += f"; {self.taken} of {self.segments} segments were kept from an earlier run"
        say(line)

    def _say(self, doing: str) -> None:
        if self.segments > 1:
            doing = f"segment {self.segments_done + 1} of {self.segments}: {doing}"
        if self.steps_done % self.steps == 2 % self.steps:
            logger.info("Hallo3: %s", doing)
        show(doing)


def expected(segments: int) -> list[str]:
    """What to say of the time that a clip of `segments` will take. Empty before the first clip."""
    seconds = ClipTime.of_a_segment
    if seconds is None:
        return []
    return [f"about {in_words(segments * seconds)} at the speed of the last video"]
