"""Measured videos: each is made and measured once, and kept in a file. And tables of them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from hallo3_core.evaluation.report import median
from hallo3_core.evaluation.tracks import Tracks
from hallo3_core.model.hallo3 import Hallo3

from .examples import digest

DRAWN = "drawn"
"""The case of the true frames. It shows the error of the measures themselves."""


def folder_of(model: Hallo3, run: Path) -> Path:
    """The folder for the videos of these weights."""
    networks = (model.denoiser, model.reference_network, model.audio_projector)
    return run / "measured" / digest(*networks, model.vae, model.speech_encoder)


def clip_file(folder: Path, case: str, index: int) -> Path:
    """The file with the frames and the measures of a clip."""
    return folder / f"{case.replace(' ', '_')}_{index}.npz"


def keep(file: Path, make: Callable[[], dict[str, np.ndarray]]) -> None:
    """Make arrays and write them to a file, if it does not exist."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **make())


def array_of(file: Path, name: str) -> np.ndarray:
    with np.load(file) as stored:
        return stored[name]


def frames_of(file: Path) -> np.ndarray:
    """The frames of a measured clip, (frames, height, width, 3) uint8."""
    return array_of(file, "frames")


def tracks_of(file: Path) -> Tracks:
    with np.load(file) as stored:
        return Tracks(**{name: stored[name] for name in Tracks.__dataclass_fields__})


def middle(values: Iterable[float]) -> float:
    return median(np.array(list(values)))


def heading(*columns: str) -> Iterator[str]:
    """The first two lines of a table."""
    yield line(*columns)
    yield "|---" * len(columns) + "|"


def line(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"
