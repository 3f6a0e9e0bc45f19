"""Clips of the drawn world as video files."""

from pathlib import Path

import torch

from hallo3_core.media.video import VideoWriter
from hallo3_core.network.config import SAMPLE_RATE
from hallo3_core.sound.sound import Sound

from .clips import Clip


def film(made: Clip, path: Path) -> Path:
    """Write a clip with its sound as an MP4. Returns its path."""
    height, width = made.frames.shape[1:3]
    sound = Sound(torch.from_numpy(made.waveform)[None], SAMPLE_RATE)
    with VideoWriter(path, height, width, sound) as video:
        video.write(torch.from_numpy(made.frames) / 255)
    return path
