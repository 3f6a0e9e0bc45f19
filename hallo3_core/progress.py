"""How far a video is, and how long it will still take."""

import time
from collections.abc import Callable
from statistics import median

from tqdm import tqdm


class TimeLeft:
    """Seconds that the rest of a video takes, from those that its steps and segments have taken.

    A segment is its steps, and then its decoding; `decoding` seconds are a guess until the first
    was decoded. The first step of all prepares what later ones do not.
    """

    def __init__(
        self,
        segments: int,
        steps: int,
        decoding: float,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.segments, self.steps = segments, steps
        self.clock = clock
        self.decoding = [decoding]
        self.step_times: list[float] = []
        self.steps_done = self.segments_done = 0
        self.last = clock()

    def step(self) -> None:
        """A step is done."""
        took, self.last = self.clock() - self.last, self.clock()
        self.steps_done += 1
        if self.steps_done == 2:
            self.step_times.clear()
        self.step_times.append(took)

    def segment(self) -> None:
        """A segment is decoded."""
        took, self.last = self.clock() - self.last, self.clock()
        if not self.segments_done:
            self.decoding.clear()
        self.decoding.append(took)
        self.segments_done += 1

    @property
    def seconds(self) -> float:
        """What is left, as far as it is known; there has to be a step."""
        steps = self.segments * self.steps - self.steps_done
        segments = self.segments - self.segments_done
        return steps * median(self.step_times) + segments * median(self.decoding)


class Progress:
    """Two bars with the time left: segments of the video, and steps of the segment."""

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
        left = tqdm.format_interval(self.left.seconds)
        self.segments.n = self.left.steps_done / self.left.steps
        self.segments.set_postfix_str(f"{left} left")

    def segment(self) -> None:
        self.left.segment()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self.steps.close()
        self.segments.close()
