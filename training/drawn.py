"""Shots of the drawn world."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hallo3_core.network.config import FPS, SEGMENT_FRAMES, Hallo3Config, Size
from hallo3_core.portrait.face_mask import box_region

from .examples import VARIANTS, Shot
from .pool import to_pixels
from .world.clips import motion_of, person_of, speech_of
from .world.drawing import Frame, draw
from .world.languages import Split
from .world.visemes import mouth_of

FRAMES = 2 * SEGMENT_FRAMES
"""Length of the clip that a shot is cut from."""
SQUARE = 0.6
"""Share of the shots that are square with black bars at their sides."""
NO_FACE = 0.2
"""Share of the portraits without a found face: their region is the whole picture."""


@dataclass(frozen=True)
class DrawnShots:
    """`count` shots of a split, on the canvas of a model."""

    split: Split
    count: int
    config: Hallo3Config

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Shot:
        return shot(self.split, index, self.config)

    def title(self, index: int) -> str:
        return f"{self.split} {index}"


def shot(split: Split, index: int, config: Hallo3Config) -> Shot:
    """A shot. Its two portraits are its first frame and a random frame of the clip."""
    generator = np.random.default_rng([13, index])
    height, width = config.canvas
    size = (height, height) if generator.random() < SQUARE else (height, width)
    bar = (width - size[1]) // 2
    person, speech = person_of(split, index), speech_of(split, index, FRAMES)
    poses, mouths = motion_of(split, index, speech, FRAMES), mouth_of(speech, FRAMES)
    start = int(generator.integers(FRAMES - SEGMENT_FRAMES + 1))

    def frame(place: int) -> Frame:
        return draw(person, poses[place], mouths[place], size, place / FPS)

    def canvas(pictures: list[np.ndarray]) -> Tensor:
        return F.pad(to_pixels(np.stack(pictures)), (bar, bar), value=-1)

    shown = [frame(start + i) for i in range(SEGMENT_FRAMES)]
    likenesses = [shown[0], frame(int(generator.integers(FRAMES)))]
    regions = [torch.ones(config.canvas)] * VARIANTS
    for i, likeness in enumerate(likenesses):
        if generator.random() > NO_FACE:
            left, top, right, bottom = likeness.geometry.face_box.tolist()
            regions[i] = box_region((left + bar, top, right + bar, bottom), config.canvas)
    return Shot(
        canvas([frame.picture for frame in shown]),
        canvas([likeness.picture for likeness in likenesses]).movedim(1, 0),
        torch.stack(regions),
        torch.from_numpy(speech.waveform),
        start,
        torch.zeros(config.face_channels),
        mouth_region(shown, config.canvas, bar),
    )


def mouth_region(frames: list[Frame], canvas: Size, bar: int = 0) -> Tensor:
    """(height, width): 1 where the mouth is in any of the frames.

    On the canvas, there is a bar of so many pixels left of the frames.
    """
    boxes = np.stack([frame.geometry.mouth_box for frame in frames])
    left, top, right, bottom = *boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()
    return box_region((left + bar, top, right + bar, bottom), canvas)
