"""How far a long video drifts from its portrait, as numbers and as a plot."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hallo3_core.evaluation.reader import drawn_reader
from hallo3_core.evaluation.tracks import Tracks, track
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.config import FPS

from .measure import Case, animated, portrait, talks

SECONDS = 120

MEASURED_FRAMES = 10 * FPS
"""Frames in ten seconds: the length of the beginning and the end that are compared."""


def colour_distance(tracks: Tracks) -> np.ndarray:
    """(frames,): Delta E between the face's colour and its mean in the first second."""
    return np.linalg.norm(tracks.colour - tracks.colour[:FPS].mean(0), axis=1)


def growth(values: np.ndarray) -> float:
    """The mean of the last ten seconds divided by that of the first ten."""
    return float(values[-MEASURED_FRAMES:].mean() / values[:MEASURED_FRAMES].mean())


def plot(tracks: Tracks, file: Path) -> None:
    seconds = np.arange(len(tracks)) / FPS
    second = np.ones(FPS) / FPS
    figure, axes = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
    curves = (
        ("identity", tracks.distance),
        ("colour, Delta E", colour_distance(tracks)),
    )
    for axis, (name, values) in zip(axes, curves, strict=True):
        axis.plot(seconds, values, alpha=0.25)
        axis.plot(seconds[: len(seconds) - FPS + 1], np.convolve(values, second, "valid"))
        axis.set(ylabel=name, ylim=(0, None))
    axes[-1].set(xlabel="seconds")
    figure.savefig(file, dpi=100)
    plt.close(figure)


def report(model: Hallo3, folder: Path, case: Case, seconds: float = SECONDS) -> Iterator[str]:
    """Measure a video of the first clip of the test split. The plot goes to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    index, speech = next(talks(round(seconds * FPS)))
    likeness = portrait(index, model.config.canvas[0]).picture
    reader, frames = drawn_reader(model.device), animated(model, case, index, speech)
    tracks = track(reader, frames, likeness, device=model.device)
    np.savez_compressed(folder / "drift.npz", **vars(tracks))
    plot(tracks, folder / "drift.png")
    yield f"distance from the portrait, last ten seconds / first ten: {growth(tracks.distance):.2f}"
    yield f"colour distance, last ten seconds / first ten: {growth(colour_distance(tracks)):.2f}"
    yield f"{folder / 'drift.png'}"
