"""Pictures and sounds of the drawn world, made once and kept on disk."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .world.clips import clip, mouth_of, speech_of
from .world.languages import Split

Rows = tuple[np.ndarray, ...]
"""A row of each of several arrays."""


def kept(files: list[Path], make: Callable[[], Iterable[Rows]]) -> Rows:
    """Arrays mapped from `files`. If these are missing, they are made of the rows of `make`."""
    if not files[-1].exists():
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        for file, rows in zip(files, zip(*make(), strict=True), strict=True):
            np.save(file, np.stack(rows))
    return tuple(np.load(file, mmap_mode="r") for file in files)


def on_all_cores(make: Callable[[int], Rows], count: int) -> Iterator[Rows]:
    """What `make` makes of the numbers up to `count`, in order."""
    with Pool(os.cpu_count(), end_with_this_process) as pool:
        yield from pool.imap(make, range(count), chunksize=8)


def end_with_this_process() -> None:
    """Ctrl-C reaches each process of the terminal. Only the first one answers, and ends the others.

    It ends them with SIGTERM, for which they would have its handler.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pictures(
    folder: Path, split: Split, clips: int, frames: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (clips, frames, height, width, 3) uint8, and boxes of the mouths (clips, frames, 4)
    float32 in pixels. They are mapped from files, which are made if they are missing."""
    file = folder / f"{split}_{clips}_{frames}_{size[0]}_{size[1]}.npy"
    boxes = file.with_suffix(".mouths.npy")
    if not boxes.exists():
        partial_file = file.with_suffix(".partial")
        folder.mkdir(parents=True, exist_ok=True)
        shape = (clips, frames, *size, 3)
        array = np.lib.format.open_memmap(partial_file, "w+", np.uint8, shape)
        drawn, mouths = on_all_cores(partial(_pictures, split, size, frames), clips), []
        for index, (shown, mouth) in enumerate(drawn):
            array[index] = shown
            mouths.append(mouth)
        array.flush()
        partial_file.replace(file)
        np.save(boxes, np.stack(mouths))
    return tuple(np.load(path, mmap_mode="r") for path in (file, boxes))


def _pictures(
    split: Split, size: tuple[int, int], frames: int, index: int
) -> tuple[np.ndarray, np.ndarray]:
    made = clip(split, index, size, frames)
    return made.frames, made.geometry.mouth_box.astype(np.float32)


def sounds(folder: Path, split: Split, clips: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Waveforms (clips, frames * 640) float16 at 16 kHz, and mouths (clips, frames, 3) float32:
    opening, width, rounding."""
    files = [folder / f"{split}_{clips}_{frames}_{kind}.npy" for kind in ("sounds", "mouths")]
    return kept(files, lambda: on_all_cores(partial(_sound, split, frames), clips))


def _sound(split: Split, frames: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    speech = speech_of(split, index, frames)
    mouth = mouth_of(speech, frames)
    tracks = np.stack([mouth.opening, mouth.width, mouth.rounding], axis=1)
    return speech.waveform.astype(np.float16), tracks


def to_pixels(frames: np.ndarray) -> Tensor:
    """(..., frames, height, width, 3) uint8 to (..., 3, frames, height, width) in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).movedim(-1, -4) / 127.5 - 1
