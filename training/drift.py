"""How far long videos drift from their portraits, as numbers and as a plot."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hallo3_core.evaluation.reader import drawn_reader
from hallo3_core.evaluation.tracks import Tracks, track
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.config import FPS

from .measure import Case, animated, portrait, talks
from .measured import array_of, keep
from .world.speech import Utterance

SECONDS = 120
DISTANCES = "identity", "colour"
PARTS = 10
"""The last tenth of a video is compared with its first tenth."""


def growth(values: np.ndarray) -> float:
    """The mean of the last tenth divided by that of the first tenth."""
    part = len(values) // PARTS
    return float(values[-part:].mean() / values[:part].mean())


def distances(
    model: Hallo3, case: Case, index: int, speech: Utterance, file: Path
) -> dict[str, np.ndarray]:
    """Distances of the frames of one video from its portrait, (frames,) each.

    `identity` is that of `Tracks`, and `colour` is Delta E between the mean colours of the face.
    They are kept in `file`, and are read from it if it exists.
    """

    def made() -> dict[str, np.ndarray]:
        reader = drawn_reader(model.device)
        likeness = portrait(index, model.config.canvas[0]).picture
        frames = animated(model, case, index, speech)
        tracks = track(reader, frames, likeness, device=model.device)
        still = track(reader, [likeness], likeness, device=model.device)
        return {"identity": tracks.distance, "colour": colour_distance(tracks, still)}

    keep(file, made)
    return {name: array_of(file, name) for name in DISTANCES}


def colour_distance(tracks: Tracks, still: Tracks) -> np.ndarray:
    """(frames,): Delta E between the colour of the face and that in the portrait `still`."""
    return np.linalg.norm(tracks.colour - still.colour[0], axis=1)


def plot(curves: dict[str, dict[str, np.ndarray]], file: Path) -> None:
    """Plot the `distances` of videos, which have names. Values are means of a second."""
    count = len(DISTANCES)
    figure, axes = plt.subplots(count, 1, figsize=(8, 4), sharex=True, layout="constrained")
    for axis, name in zip(axes, DISTANCES, strict=True):
        for video, values in curves.items():
            smooth = np.convolve(values[name], np.ones(FPS) / FPS, "valid")
            axis.plot(np.arange(len(smooth)) / FPS, smooth, label=video, linewidth=0.8)
        axis.set(ylabel=name, ylim=(0, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    axes[-1].set(xlabel="seconds")
    figure.savefig(file, dpi=100)
    plt.close(figure)


def report(
    model: Hallo3,
    folder: Path,
    case: Case,
    seconds: float = SECONDS,
    clips: int = 1,
    anchors: Sequence[float] = (0.0,),
) -> Iterator[str]:
    """Measure long videos of the first clips of the test split, with each `colour_anchor`.

    The measured distances and the plot go to `folder`. Videos that are measured already are not
    made again.
    """
    curves = {}
    for index, speech in islice(talks(round(seconds * FPS)), clips):
        for anchor in anchors:
            name = f"person {index}, anchor {anchor:g}"
            file = folder / f"drift {seconds:g} s, {name}.npz"
            anchored = replace(case, colour_anchor=anchor)
            found = curves[name] = distances(model, anchored, index, speech, file)
            ratios = ", ".join(f"{what} {growth(values):.2f}" for what, values in found.items())
            yield f"{name}, last tenth / first tenth: {ratios}"
    plot(curves, folder / "drift.png")
    yield f"{folder / 'drift.png'}"
