"""Shots of real clips: a folder of videos with speech."""

from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hallo3_core.errors import InputError
from hallo3_core.media.video import read_frames
from hallo3_core.network.config import NEW_FRAMES, SEGMENT_FRAMES, Hallo3Config, frame_count
from hallo3_core.portrait.face_mask import box_region
from hallo3_core.portrait.faces import Finder, choose
from hallo3_core.portrait.framing import FITS, Framing
from hallo3_core.sound.sound_file import read_sound
from hallo3_core.text import TextEncoder

from .examples import VARIANTS, Shot

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")


class FolderShots:
    """Shots of all videos in a folder. Each has 49 frames at 25 fps; one begins every 47 frames.

    A text file with the name of a video, in UTF-8, is its caption. `text_encoder` is loaded only
    if there are captions. The process that makes the shots opens the face finder.
    Raises `InputError` if no video is long enough, or a caption is not in UTF-8.
    """

    def __init__(
        self,
        folder: Path,
        config: Hallo3Config,
        open_finder: Callable[[], Finder],
        text_encoder: Callable[[], TextEncoder],
    ):
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}: give the folder of the videos.")
        self.config, self.open_finder = config, open_finder
        videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS)
        self.places = [
            (video, start)
            for video in videos
            for start in range(0, length(video) - SEGMENT_FRAMES + 1, NEW_FRAMES)
        ]
        if not self.places:
            raise InputError(
                f"No video in {folder} lasts {SEGMENT_FRAMES} frames at 25 fps with speech: put "
                "clips of 2 s or more there."
            )

        files = {video: video.with_suffix(".txt") for video in videos}
        self.captions = {v: read_caption(f) for v, f in files.items() if f.is_file()}
        encode = text_encoder() if self.captions else None
        self.texts = {video: encode(caption)[0] for video, caption in self.captions.items()}

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def finder(self) -> Finder:
        return self.open_finder()

    def title(self, index: int) -> str:
        video, start = self.places[index]
        return f"{video.name!a} {video.stat().st_mtime_ns} {start} {self.captions.get(video)}"

    def __getitem__(self, index: int) -> Shot:
        """A shot. Its two portraits are its first frame and a random frame of the video."""
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
            read_sound(video).prepared(),
            start,
            face,
            torch.zeros(canvas),
            self.texts.get(video),
        )


def read_caption(file: Path) -> str:
    """The caption in a file in UTF-8. Some editors begin such files with a byte order mark."""
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not in UTF-8: save the caption in UTF-8.") from error


def to_picture(frame: np.ndarray) -> Tensor:
    """(height, width, 3) uint8 to (3, height, width) in [0, 1]."""
    return torch.from_numpy(frame).movedim(-1, 0) / 255


def framed(framing: Framing, frames: np.ndarray) -> Tensor:
    """(frames, height, width, 3) uint8 to the canvas: (frames, 3, height, width) in [-1, 1]."""
    return torch.cat([framing.apply(to_picture(frame)) for frame in frames])


def length(video: Path) -> int:
    """Number of frames with both picture and sound."""
    sound = read_sound(video)
    return min(len(pictures(video)), frame_count(sound.samples, sound.rate))


@lru_cache(maxsize=1)
def pictures(video: Path) -> np.ndarray:
    """All frames of a video, (frames, height, width, 3) uint8."""
    return np.stack(list(read_frames(video)))
