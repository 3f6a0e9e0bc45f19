"""The estimate of the remaining time, with a simulated clock."""

import pytest

from hallo3_core.media.progress import TimeLeft


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(
    steps: int, segments: int, decoding: float, guess: float, loading: float = 0
) -> list[tuple[float, float]]:
    """The estimated and the real remaining time after every step.

    A step takes one second. The first takes 5, and the first of a later segment takes `loading`
    more.
    """
    clock = Clock()
    left = TimeLeft(segments, steps, guess, clock)
    said = []
    for segment in range(segments):
        for step in range(steps):
            clock.now += 1 + (4 if segment == step == 0 else loading if step == 0 else 0)
            left.step()
            said.append((left.seconds, clock.now))
        clock.now += decoding
        left.segment()
    return [(seconds, clock.now - now) for seconds, now in said]


def test_it_is_right_from_the_second_step_on():
    for said, true in run(steps=10, segments=4, decoding=20, guess=20)[1:]:
        assert said == pytest.approx(true)


def test_a_wrong_guess_is_mended_by_the_first_segment():
    history = run(steps=10, segments=4, decoding=20, guess=5)
    assert history[1][0] == pytest.approx(history[1][1] - 4 * 15)
    for said, true in history[10:]:
        assert said == pytest.approx(true)


def test_loading_before_every_segment_is_counted_from_the_second_on():
    for said, true in run(steps=10, segments=4, decoding=20, guess=20, loading=8)[10:20]:
        assert said == pytest.approx(true + 8)


def test_segments_of_an_earlier_run_are_not_waited_for():
    clock = Clock()
    left = TimeLeft(segments=4, steps=10, decoding=5, clock=clock)
    left.start(3)
    for _ in range(2):
        clock.now += 1
        left.step()
    assert left.seconds == 8 + 5
