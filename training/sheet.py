"""Contact sheets of measured videos."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from hallo3_core.network.config import FPS

from .measure import FRAMES, NOISES, Case, noisy, talks
from .measured import DRAWN, array_of, clip_file, frames_of
from .world.speech import Utterance
from .world.visemes import mouth_of

SHOWN, FEWER = slice(3, None, 9), slice(5, None, 15)
"""The frames of a video that are shown: in the two sheets, and in `strips`."""
PEOPLE = 4
INCHES = 10


def sheets(folder: Path, clips: int, cases: dict[str, Case]) -> Iterator[Path]:
    """Draw two sheets of the clips in `folder`."""
    spoken = dict(islice(talks(), min(clips, PEOPLE)))
    yield people(folder, spoken, next(iter(cases)))
    yield one_person(folder, min(spoken), cases)


def one_person(folder: Path, index: int, cases: dict[str, Case]) -> Path:
    """One person and one speech, a row for each case."""
    names = (DRAWN, "autoencoder", *map(noisy, NOISES), *cases)
    size = INCHES, 0.98 * len(names)
    figure, axes = plt.subplots(len(names), figsize=size, layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        axis.imshow(strip(clip_file(folder, name, index)))
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    return save(figure, folder / "cases.jpg")


def people(folder: Path, spoken: dict[int, Utterance], case: str) -> Path:
    """Some people in one case. Under each is how far the mouth should open, and how far it does."""
    count = len(spoken)
    layout = {"height_ratios": (1, 0.6) * count, "layout": "constrained"}
    figure, axes = plt.subplots(2 * count, figsize=(INCHES, 1.75 * count), **layout)
    rows = zip(spoken.items(), axes[::2], axes[1::2], strict=True)
    for (index, speech), picture, curves in rows:
        made = clip_file(folder, case, index)
        picture.imshow(strip(made))
        picture.axis("off")
        opening = array_of(made, "opening")
        seconds, truth = np.arange(FRAMES) / FPS, mouth_of(speech, FRAMES).opening
        curves.fill_between(seconds, truth / truth.max(), alpha=0.25, label="meant")
        curves.plot(seconds, opening / opening.max(), label="in the frames")
        curves.set(xlim=(0, FRAMES / FPS), yticks=[])
    axes[1].legend(loc="upper right", fontsize=8)
    axes[-1].set(xlabel="seconds")
    return save(figure, folder / "people.jpg")


def strip(file: Path, shown: slice = SHOWN) -> np.ndarray:
    """Frames of a measured video side by side, uint8."""
    return np.concatenate(frames_of(file)[shown], axis=1)


def strips(files: Iterable[Path], picture: Path) -> Path:
    """Write a picture with a row for each measured video. All videos have one size."""
    Image.fromarray(np.concatenate([strip(file, FEWER) for file in files])).save(picture)
    return picture


def save(figure: plt.Figure, file: Path) -> Path:
    figure.savefig(file, dpi=100, pil_kwargs={"quality": 85})
    plt.close(figure)
    return file
