"""What is said of the built-in model's videos, from tracks whose answers are known."""

from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hallo3_core.evaluation.tracks import Tracks
from hallo3_core.network.config import FPS
from training import drift, measure
from training.measure import (
    CASES,
    FEW,
    FRAMES,
    NOISES,
    Clip,
    noisy,
    reconstruction,
    row,
    swapped,
    talks,
)
from training.measured import clip_file
from training.sheet import sheets


def clip(seed: int, late: int = 0) -> Clip:
    """A mouth that does what was meant, `late` frames later."""
    truth = np.random.default_rng(seed).random(FRAMES)
    nothing = np.zeros(FRAMES)
    jump = np.ones(FRAMES)
    jump[FRAMES // 2] = 3
    tracks = Tracks(
        opening=0.1 * np.roll(truth, late),
        distance=nothing + 0.25,
        colour=np.zeros((FRAMES, 3)),
        jump=jump,
        flicker=nothing,
        sharpness=nothing,
        likeness=nothing,
        face=np.zeros((FRAMES, 4)),
    )
    return Clip(tracks, truth)


def test_lips_that_follow_and_lips_of_another():
    clips = [clip(seed) for seed in range(5)]
    assert [found.sync for found in clips] == pytest.approx([1] * 5)
    assert np.abs(swapped(clips)).max() < 0.4
    assert clip(0, late=2).lag == 2
    assert clip(0, late=2).sync < 0.4


def test_a_row_has_medians_and_the_lowest_correlation():
    clips = [clip(0), clip(1, late=3), clip(2)]
    cells = [float(cell) for cell in row("case", clips).strip("| ").split(" | ")[1:]]
    assert [cells[i] for i in (0, 2, 5, 6)] == [1, 0, 0.25, 3]
    assert cells[1] == pytest.approx(clips[1].sync, abs=0.01)
    assert cells[1] < 0.9


def test_what_the_autoencoder_loses(tmp_path, monkeypatch):
    """51 of 255 at every pixel of one clip: 20 log10(5) dB; half and twice as much in others.

    The error in the mouth is half as large: 6 dB more.
    """
    boxes = np.array([[1, 1, 3, 2], [0, 2, 2, 4]])
    geometry = SimpleNamespace(mouth_box=boxes)
    monkeypatch.setattr(measure, "true_clip", lambda *_: SimpleNamespace(geometry=geometry))
    for (index, _), error in zip(islice(talks(), 3), (52, 26, 102), strict=True):
        frames = np.full((2, 4, 4, 3), 100, np.uint8)
        np.savez(clip_file(tmp_path, "drawn", index), frames=frames)
        frames = frames + np.uint8(error)
        for frame, (left, top, right, bottom) in zip(frames, boxes, strict=True):
            frame[top:bottom, left:right] = 100 + error // 2
        np.savez(clip_file(tmp_path, "autoencoder", index), frames=frames)
    whole, mouths = reconstruction(tmp_path, 4, 3)
    assert mouths == pytest.approx(20 * np.log10(255 / 26))
    assert whole < mouths - 5


def test_silent_clips_are_left_out():
    """One in twenty is."""
    indices = [index for index, speech in islice(talks(frames=25), 60)]
    assert indices == sorted(set(indices))
    assert 60 <= indices[-1] < 70


def test_drift_is_the_last_tenth_over_the_first():
    distance = np.linspace(0.1, 0.3, 60 * FPS)
    assert drift.growth(distance) == pytest.approx(0.29 / 0.11, rel=1e-2)


def test_colours_are_compared_with_the_portrait():
    """Lab, 3 and 4 off: Delta E 5."""
    still, moving = (
        replace(clip(0).tracks, colour=np.tile(colour, (frames, 1)))
        for colour, frames in (([60.0, 10, 10], 1), ([60.0, 13, 14], 2 * FPS))
    )
    assert drift.colour_distance(moving, still) == pytest.approx(np.full(2 * FPS, 5))


def test_measured_videos_are_not_made_again(tmp_path):
    """The plot and the ratios come from the kept distances."""
    far = {"identity": np.linspace(0.1, 0.3, 50), "colour": np.ones(50)}
    index, _ = next(talks(frames=50))
    name = f"person {index}, anchor 0.5"
    np.savez_compressed(tmp_path / f"drift 2 s, {name}.npz", **far)
    lines = list(drift.report(None, tmp_path, FEW, seconds=2, anchors=[0.5]))
    assert lines[0] == f"{name}, last tenth / first tenth: identity 2.70, colour 1.00"
    assert (tmp_path / "drift.png").stat().st_size > 10_000


def test_contact_sheets(tmp_path):
    """Of two people; one row for each case of the first, here ever lighter."""
    names = ("drawn", "autoencoder", *map(noisy, NOISES), *CASES)
    for index, _ in islice(talks(), 2):
        for place, name in enumerate(names):
            frames = np.full((FRAMES, 16, 16, 3), 20 * place, np.uint8)
            file = clip_file(tmp_path, name, index)
            np.savez(file, frames=frames, **vars(clip(index).tracks))
    people, cases = (Image.open(file) for file in sheets(tmp_path, 2, CASES))
    assert people.size == (1000, 350)
    assert people.getpixel((500, 60))[0] == pytest.approx(20 * names.index("published"), abs=4)
    assert cases.size == (1000, 98 * len(names))
    found = [cases.getpixel((500, 49 + 98 * place))[0] for place in range(len(names))]
    assert found == pytest.approx([20 * place for place in range(len(names))], abs=4)
