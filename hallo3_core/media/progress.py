"""The progress of a video, and the time that is left."""

import time
from collections.abc import Callable
from statistics import median

from tqdm import tqdm


def in_words(seconds: float) -> str:
    """A duration as text, such as 0:40, 12:05 or 1:02:00."""
    return tqdm.format_interval(round(seconds)).lstrip("0").rjust(4, "0")


class TimeLeft:
    """Estimates the seconds that the rest of a video takes, from the steps and segments so far.

    A segment takes its steps, and then its decoding. `decoding` is a guess in seconds, used until
    the first segment is decoded. The very first step is slower, so later steps replace it. If the
    first step of a later segment is slower than usual, the difference is counted as decoding.
    """

    def __init__(
        self,
        segments: int,
        steps: int,
        decoding: float,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.segments, self.steps, self.decoding = segments, steps, decoding
        self.clock = clock
        self.step_times: list[float] = []
        self.decoding_times: list[float] = []
        self.start(0)

    def start(self, segment: int) -> None:
        """Start a segment. The segments before it are done, now or in an earlier run."""
        self.steps_done, self.segments_done = segment * self.steps, segment
        self.last = self.clock()

    def step(self) -> None:
        """Count a finished step."""
        took, self.last = self.clock() - self.last, self.clock()
        self.steps_done += 1
        if self.decoding_times and self.steps_done % self.steps == 1:
            self.decoding_times[-1] += max(took - self.step_time, 0)
        else:
            self.step_times.append(took)

    def segment(self) -> None:
        """Count a decoded segment."""
        took, self.last = self.clock() - self.last, self.clock()
        self.decoding_times.append(took)
        self.segments_done += 1

    @property
    def step_time(self) -> float:
        """The median seconds of a step."""
        return median(self.step_times[1:] or self.step_times)

    @property
    def seconds(self) -> float:
        """The estimated seconds left. At least one step must be done."""
        steps = self.segments * self.steps - self.steps_done
        segments = self.segments - self.segments_done
        return steps * self.step_time + segments * median(self.decoding_times or [self.decoding])


class Progress:
    """Two progress bars with the time left: segments of the video, and steps of the segment."""

    def __init__(self, segments: int, steps: int, decoding: float, quiet: bool):
        layout = "{l_bar}{bar}| {n:.1f}/{total} [{elapsed}{postfix}]"
        self.left = TimeLeft(segments, steps, decoding)
        self.segments = tqdm(
            total=segments, desc="segments", bar_format=layout, position=0, disable=quiet
        )
        self.steps = tqdm(total=steps, desc="   steps", position=1, leave=False, disable=quiet)

    def step(self) -> None:
        self.left.step()
        if self.steps.n == self.steps.total:
            self.steps.reset()
        self.steps.update()
        self.segments.n = self.left.steps_done / self.left.steps
        self.segments.set_postfix_str(f"{in_words(self.left.seconds)} left")

    def segment(self, index: int, taken: bool = False) -> None:
        """Count a segment that was decoded now, or `taken` from an earlier run."""
        if taken:
            self.left.start(index + 1)
            self.segments.n = index + 1
            self.segments.refresh()
        else:
            self.left.segment()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self.steps.close()
        self.segments.close()
