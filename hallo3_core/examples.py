"""The examples: drawn people who do not exist, and a synthetic voice."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from .media.outputs import write_file
from .media.picture import read_image, save_picture
from .media.video import save_sound
from .sound.sound_file import read_sound

FOLDER = Path(__file__).parent / "builtin" / "example"
PORTRAIT, SPEECH = FOLDER / "portrait.png", FOLDER / "speech.wav"

CHORDS = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7))
"""Notes in Hz."""
CHORD_SECONDS = 0.8


def portrait() -> Tensor:
    """A drawn person, (3, 512, 512) in [0, 1].

    `python -m training.world portrait` makes it.
    """
    return read_image(PORTRAIT)


def group() -> Tensor:
    """The portrait and another drawn person side by side, (3, 512, 1536) in [0, 1].

    `python -m training.world group` makes it.
    """
    return read_image(FOLDER / "group.png")


def pair() -> Tensor:
    """The portrait and another drawn person close together, (3, 512, 768) in [0, 1].

    `python -m training.world pair` makes it.
    """
    return read_image(FOLDER / "pair.png")


def song() -> tuple[Tensor, int]:
    """The example speech mixed with plucked chords, (1, samples) in [-1, 1], and its rate in Hz."""
    speech = read_sound(SPEECH)
    time = torch.arange(speech.samples) / speech.rate
    music = torch.zeros_like(time)
    for i, chord in enumerate(CHORDS * 4):
        since = time - i * CHORD_SECONDS
        pluck = torch.where(since > 0, torch.exp(-2 * since), torch.zeros(()))
        for note in chord:
            music += 0.05 * pluck * torch.sin(2 * torch.pi * note * since)
    return (speech.mono() + music).clamp(-1, 1)[None], speech.rate


EXAMPLES: dict[str, Callable[..., None]] = {
    "hallo3_portrait.png": lambda **to: save_picture(portrait(), **to),
    "hallo3_group.png": lambda **to: save_picture(group(), **to),
    "hallo3_pair.png": lambda **to: save_picture(pair(), **to),
    "hallo3_speech.wav": lambda **to: write_file(content=SPEECH.read_bytes(), **to),
    "hallo3_song.wav": lambda **to: save_sound(*song(), **to),
}
"""How each file is written, with `path` and `overwrite`. The shipped workflows use these names."""


def write_examples(folder: Path, overwrite: bool = False) -> Iterator[tuple[Path, bool]]:
    """Write the examples. Yields each path, and whether it was written: existing files are kept.

    Raises `InputError` if the folder cannot be written to.
    """
    for name, write in EXAMPLES.items():
        path = folder / name
        wanted = overwrite or not path.exists()
        if wanted:
            write(path=path, overwrite=overwrite)
        yield path, wanted
