"""`python -m training.world sheet OUT.png`, `clip INDEX OUT.mp4`, or `portrait OUT.png`."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hallo3_core.config import SAMPLE_RATE
from hallo3_core.video import VideoWriter, sound_of_waveform

from .clips import clip, person_of
from .drawing import draw
from .motion import still
from .visemes import still_mouth

EXAMPLE = 30
"""Of the test split: the portrait of the pack's examples."""
MOUTHS = ((0, 0, 0), (0.15, 0.6, 0), (0.45, 0.9, 0), (1, 0.2, 0), (0.35, -0.6, 1))


def sheet(path: Path, people: int = 24, side: int = 160, split: str = "train") -> None:
    """People, two in a row, each with the mouth in several shapes."""
    pose = still(1)[0]
    strips = [
        np.concatenate(
            [draw(person, pose, still_mouth(*m), (side, side)).picture for m in MOUTHS], 1
        )
        for person in (person_of(split, index) for index in range(people))
    ]
    rows = [np.concatenate(strips[i : i + 2], 1) for i in range(0, people, 2)]
    Image.fromarray(np.concatenate(rows)).save(path)


def film(index: int, path: Path, frames: int = 125) -> None:
    made = clip("train", index, (256, 384), frames)
    sound = sound_of_waveform(torch.from_numpy(made.waveform)[None], SAMPLE_RATE)
    with VideoWriter(path, 256, 384, sound) as video:
        video.write(torch.from_numpy(made.frames) / 255)


def portrait(path: Path, side: int = 512) -> None:
    frame = draw(person_of("test", EXAMPLE), still(1)[0], still_mouth(), (side, side))
    Image.fromarray(frame.picture).save(path)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sheet", path]:
            sheet(Path(path))
        case ["clip", index, path]:
            film(int(index), Path(path))
        case ["portrait", path]:
            portrait(Path(path))
        case _:
            sys.exit(__doc__)
