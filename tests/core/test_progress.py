"""The time left, on a clock of our own."""

import pytest

from hallo3_core.progress import TimeLeft


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(steps: int, segments: int, decoding: float, guess: float) -> list[tuple[float, float]]:
    """What was said to be left and what really was, after every step; steps take a second."""
    clock = Clock()
    left = TimeLeft(segments, steps, guess, clock)
    said = []
    for segment in range(segments):
        for step in range(steps):
            clock.now += 5 if segment == step == 0 else 1
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
