"""Shots of real clips: a folder of videos in which somebody speaks."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hallo3_core.config import NEW_FRAMES, SEGMENT_FRAMES, Hallo3Config, frame_count
from hallo3_core.errors import InputError
from hallo3_core.faces import Finder, choose
from hallo3_core.framing import FITS, Framing
from hallo3_core.portrait import box_region
from hallo3_core.speech import prepare_waveform
from hallo3_core.text import TextEncoder
from hallo3_core.video import read_frames, read_speech

from .examples import VARIANTS, Shot

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")


class FolderShots:
    """Shots of 49 frames at 25 fps, one every 47, of all videos in a folder.

    A text file of a video's name is its caption, for which `text_encoder` is loaded.
    Raises `InputError` if there is no video of that length.
    """

    def __init__(
        self,
        folder: Path,
        config: Hallo3Config,
        finder: Finder,
        text_encoder: Callable[[], TextEncoder],
    ):
        self.config, self.finder = config, finder
        videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS)
        self.places = [
            (video, start)
            for video in videos
            for start in range(0, length(video) - SEGMENT_FRAMES + 1, NEW_FRAMES)
        ]
        if not self.places:
            raise InputError(
                f"No video in {folder} lasts {SEGMENT_FRAMES} frames at 25 fps with speech: put "
                "clips of 2 s and more there."
            )

        files = {video: video.with_suffix(".txt") for video in videos}
        self.captions = {v: file.read_text() for v, file in files.items() if file.is_file()}
        encode = text_encoder() if self.captions else None
        self.texts = {video: encode(caption)[0] for video, caption in self.captions.items()}

    def __len__(self) -> int:
        return len(self.places)

    def title(self, index: int) -> str:
        video, start = self.places[index]
        return f"{video.name} {video.stat().st_mtime_ns} {start} {self.captions.get(video)}"

    def __getitem__(self, index: int) -> Shot:
        """One variant of the portrait is the shot's first frame, the other any of the video."""
        video, start = self.places[index]
        frames = pictures(video)
        generator = np.random.default_rng([29, index])
        likenesses = [frames[start], frames[generator.integers(len(frames))]]
        size, canvas = frames.shape[1:3], self.config.canvas
        framing = FITS["published"](size, canvas)
        face = torch.zeros(self.config.face_channels)
        regions = [torch.ones(canvas)] * VARIANTS
        for i, likeness in enumerate(likenesses):
            found = choose(self.finder(to_picture(likeness)), 0)
            if found:
                regions[i] = box_region(framing.box(found.box, size), canvas)
                if found.embedding is not None:
                    face = found.embedding[0]
        return Shot(
            framed(framing, frames[start : start + SEGMENT_FRAMES]).movedim(0, 1),
            framed(framing, np.stack(likenesses)),
            torch.stack(regions),
            prepare_waveform(*read_speech(video)),
            start,
            face,
            torch.zeros(canvas),
            self.texts.get(video),
        )


def to_picture(frame: np.ndarray) -> Tensor:
    """(height, width, 3) uint8 to (3, height, width) in [0, 1]."""
    return torch.from_numpy(frame).movedim(-1, 0) / 255


def framed(framing: Framing, frames: np.ndarray) -> Tensor:
    """(frames, height, width, 3) uint8 on the canvas, (frames, 3, height, width) in [-1, 1]."""
    return torch.cat([framing.apply(to_picture(frame)) for frame in frames])


def length(video: Path) -> int:
    """Frames that have speech, too."""
    waveform, rate = read_speech(video)
    return min(len(pictures(video)), frame_count(waveform.shape[1], rate))


@lru_cache(maxsize=1)
def pictures(video: Path) -> np.ndarray:
    """All frames of a video."""
    return np.stack(list(read_frames(video)))
