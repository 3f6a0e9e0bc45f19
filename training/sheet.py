"""Contact sheets of what `measure` made."""

from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hallo3_core.config import FPS

from .measure import FRAMES, talks
from .world.visemes import mouth_of

SHOWN = np.arange(3, FRAMES, 9)
"""Frames of a video that stand for it."""
PEOPLE = 4


def strip(file: Path) -> np.ndarray:
    """Frames of one measured video side by side, uint8."""
    with np.load(file) as stored:
        return np.concatenate(stored["frames"][SHOWN], axis=1)


def cases(folder: Path, names: list[str], file: Path) -> None:
    """The same person saying the same thing, a row for each case."""
    index, _ = next(talks())
    figure, axes = plt.subplots(len(names), figsize=(10, 0.98 * len(names)), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        axis.imshow(strip(folder / f"{name.replace(' ', '_')}_{index}.npz"))
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    save(figure, file)


def people(folder: Path, file: Path) -> None:
    """Some people, and under each how far the mouth was meant to open and how far it did."""
    clips = list(islice(talks(), PEOPLE))
    figure, axes = plt.subplots(
        2 * PEOPLE,
        figsize=(10, 1.75 * PEOPLE),
        height_ratios=(1, 0.6) * PEOPLE,
        layout="constrained",
    )
    for (index, speech), picture, curves in zip(clips, axes[::2], axes[1::2], strict=True):
        made = folder / f"published_{index}.npz"
        picture.imshow(strip(made))
        picture.axis("off")
        with np.load(made) as stored:
            opening = stored["opening"]
        seconds, truth = np.arange(FRAMES) / FPS, mouth_of(speech, FRAMES).opening
        curves.fill_between(seconds, truth / truth.max(), alpha=0.25, label="the speech")
        curves.plot(seconds, opening / opening.max(), label="the frames")
        curves.set(xlim=(0, FRAMES / FPS), yticks=[])
    axes[1].legend(loc="upper right", fontsize=8)
    axes[-1].set(xlabel="seconds")
    save(figure, file)


def save(figure: plt.Figure, file: Path) -> None:
    figure.savefig(file, dpi=100, pil_kwargs={"quality": 85} if file.suffix == ".jpg" else None)
    plt.close(figure)
