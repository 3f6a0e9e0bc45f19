"""Measures the redub of drawn videos of the test split: does the mouth follow the new speech?

Each video shows a person who speaks. It gets the speech of the next video.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from hallo3_core import builtin
from hallo3_core.animate import ModelAnimator
from hallo3_core.clip.redub import REGION, STRENGTH, Footage, Redub
from hallo3_core.clip.segments import make_segments
from hallo3_core.evaluation.reader import Reader, drawn_reader
from hallo3_core.evaluation.report import seams
from hallo3_core.evaluation.sync import correlation
from hallo3_core.evaluation.tracks import Tracks, track
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.portrait.squares import paste
from hallo3_core.portrait.track import track_of_boxes
from hallo3_core.settings import distilled
from hallo3_core.speech.encode import encode_speech

from .measure import FRAMES, talks
from .measured import (
    DRAWN,
    array_of,
    clip_file,
    folder_of,
    heading,
    keep,
    line,
    middle,
    tracks_of,
)
from .sheet import strips
from .world.clips import Clip, clip_with, motion_of, person_of
from .world.speech import Utterance
from .world.visemes import mouth_of

CLIPS = 10
SIZE = 192, 288
"""Of the videos."""


@dataclass(frozen=True)
class Case:
    """What is made again, and how strongly."""

    region: str = REGION
    strength: float = STRENGTH


CASES = {
    f"{region}, strength {strength:g}": Case(region, strength)
    for region, strengths in {"mouth": (1.0, 0.75, 0.5, 0.25), "face": (0.75,)}.items()
    for strength in strengths
}


@dataclass(frozen=True)
class Take:
    """A drawn video, by its number, and the speech that it gets."""

    index: int
    clip: Clip
    speech: Utterance

    @property
    def truth(self) -> np.ndarray:
        """(2, frames): how far the mouth should open with the new speech, and with the old one."""
        both = self.speech, self.clip.speech
        return np.stack([mouth_of(speech, FRAMES).opening for speech in both])


@dataclass(frozen=True)
class Result:
    """The measures of a video. `outside` is the number of changed values outside the mask."""

    tracks: Tracks
    outside: int = 0


def takes(count: int = CLIPS) -> Iterator[Take]:
    """The first clips of the test split in which somebody talks. Each gets the next one's words."""
    spoken = list(islice(talks(), count))
    for (index, speech), (_, words) in zip(spoken, spoken[1:] + spoken[:1], strict=True):
        motion = motion_of("test", index, speech, FRAMES)
        yield Take(index, clip_with(person_of("test", index), speech, motion, SIZE), words)


def redubbed(model: Hallo3, take: Take, case: Case) -> tuple[np.ndarray, int]:
    """The new frames (frames, height, width, 3) uint8, and how many values changed outside."""
    source, boxes = take.clip.frames, take.clip.geometry.face_box.tolist()
    side, noise = model.config.canvas[0], SeededNoise(take.index)
    footage = Footage(source, track_of_boxes(boxes, SIZE), side)
    identity = encode_portrait(
        model.vae,
        model.reference_network,
        footage.portrait,
        footage.face_region(boxes[0]),
        noise,
        fit="published",
    )
    heard = encode_speech(model.speech_encoder, torch.from_numpy(take.speech.waveform))
    animator = ModelAnimator(model, identity, heard, noise, **distilled(builtin.STEPS))
    redub = Redub(animator, footage, footage.region(boxes[0], case.region), case.strength)
    segments = list(make_segments(redub, identity, heard))
    frames = torch.cat([segment.frames for segment in segments]).numpy()
    changed = (frames != source).any(-1)
    return frames, int((changed & ~reached(redub)).sum())


def reached(redub: Redub) -> np.ndarray:
    """Where (frames, height, width) a redub may change the video."""
    black, white = (
        torch.zeros(1, *SIZE, 3),
        torch.ones(1, redub.footage.side, redub.footage.side, 3),
    )
    options = {"match_colours": 0, "region": redub.edged}
    track = redub.footage.track
    marks = [paste(black, white, track, number, **options) for number in range(FRAMES)]
    return (torch.cat(marks)[..., 0] > 0).numpy()


def take_file(folder: Path, name: str, take: Take) -> Path:
    return clip_file(folder, f"redub {name}", take.index)


def measure(model: Hallo3, name: str, take: Take, folder: Path, reader: Reader) -> Result:
    """Measure one video. A video that is in `folder` is not made again."""

    def made() -> dict[str, np.ndarray]:
        frames, outside = take.clip.frames, 0
        if name != DRAWN:
            frames, outside = redubbed(model, take, CASES[name])
        tracks = track(reader, frames, take.clip.frames[0], device=model.device)
        return {"frames": frames, "outside": np.array(outside), **vars(tracks)}

    file = take_file(folder, name, take)
    keep(file, made)
    return Result(tracks_of(file), int(array_of(file, "outside")))


def row(name: str, found: list[Result], sources: list[Result], all_takes: list[Take]) -> str:
    """A row of the table: medians over the videos, and the worst of some."""
    pairs = list(zip(found, all_takes, strict=True))
    new, old = (
        [correlation(result.tracks.opening, take.truth[i]) for result, take in pairs]
        for i in range(2)
    )
    likeness = [
        result.tracks.distance.mean() / source.tracks.distance.mean()
        for result, source in zip(found, sources, strict=True)
    ]
    return line(
        name,
        f"{middle(new):.3f}",
        f"{min(new):.2f}",
        f"{middle(old):.3f}",
        f"{max(old):.2f}",
        f"{middle(likeness):.2f}",
        f"{max(likeness):.2f}",
        f"{middle(seams(result.tracks.jump) for result in found):.2f}",
        f"{sum(result.outside for result in found)}",
    )


def report(model: Hallo3, run: Path, count: int = CLIPS) -> Iterator[str]:
    """The lines of the table, each as soon as it is ready, and the name of a picture."""
    folder, reader = folder_of(model, run), drawn_reader(model.device)
    all_takes = list(takes(count))
    follows = ("r with the new speech", "lowest", "r with the old speech", "highest")
    yield from heading("redub", *follows, "identity", "highest", "seams", "changed outside")
    sources = [measure(model, DRAWN, take, folder, reader) for take in all_takes]
    yield row(DRAWN, sources, sources, all_takes)
    for name in CASES:
        found = [measure(model, name, take, folder, reader) for take in all_takes]
        yield row(name, found, sources, all_takes)
    yield ""
    default = next(name for name, case in CASES.items() if case == Case())
    both = (take_file(folder, name, take) for take in all_takes for name in (DRAWN, default))
    yield str(strips(both, folder / "redub.png"))
