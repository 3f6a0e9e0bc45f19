"""What the built-in model does on the test split: lips, likeness, guidance, seams.

Every case animates the same unseen people, saying what they never said, and changes one thing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hallo3_core import builtin
from hallo3_core.animate import GUIDANCE, SAMPLER, STEPS, animate
from hallo3_core.config import FPS, NEW_FRAMES
from hallo3_core.evaluation.reader import drawn_reader
from hallo3_core.evaluation.report import seams
from hallo3_core.evaluation.sync import best_lag, correlation
from hallo3_core.evaluation.tracks import Tracks, track
from hallo3_core.model import Hallo3
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait import Identity, box_region, encode_portrait
from hallo3_core.speech import encode_speech

from .world.clips import person_of, speech_of
from .world.drawing import Frame, draw
from .world.motion import still
from .world.speech import Speech, silence
from .world.visemes import mouth_of, still_mouth

CLIPS = 20
SEGMENTS = 2
FRAMES = SEGMENTS * NEW_FRAMES
OTHER = 1000
"""So many numbers on is another person."""


@dataclass(frozen=True)
class Case:
    """One way to animate a clip: what differs from the published settings."""

    steps: int = STEPS
    sampler: str = SAMPLER
    guidance: float = GUIDANCE
    speaks: bool = True
    referenced: bool = True
    person: int = 0


CASES = {
    "published": Case(),
    "10 steps": Case(steps=10, sampler="dpm++2m"),
    "guidance 1": Case(guidance=1),
    "guidance 6": Case(guidance=6),
    "silence": Case(speaks=False),
    "no reference": Case(referenced=False),
    "other portrait": Case(person=OTHER),
}


def talks(split: str = "test", frames: int = FRAMES) -> Iterator[tuple[int, Speech]]:
    """The clips of a split in which somebody talks."""
    for index in count():
        speech = speech_of(split, index, frames)
        if speech.phonemes:
            yield index, speech


def portrait(person: int, size: tuple[int, int]) -> Frame:
    """Looking ahead, with the mouth shut."""
    return draw(person_of("test", person), still(1)[0], still_mouth(), size)


def identity_of(model: Hallo3, frame: Frame, noise: SeededNoise) -> Identity:
    picture = torch.from_numpy(frame.picture).movedim(-1, 0) / 255
    region = box_region(frame.geometry.face_box.tolist(), picture.shape[1:])
    return encode_portrait(model.vae, model.reference_network, picture, region, noise)


def frames_of(model: Hallo3, case: Case, index: int, speech: Speech) -> Iterator[np.ndarray]:
    """The video of a clip in a case, frame by frame."""
    height, _ = model.config.canvas
    noise = SeededNoise(index)
    identity = identity_of(model, portrait(index + case.person, (height, height)), noise)
    if not case.referenced:
        nothing = [torch.zeros_like(tokens) for tokens in identity.features]
        identity = replace(identity, features=nothing)
    waveform = speech.waveform if case.speaks else silence(FRAMES / FPS).waveform
    heard = encode_speech(model.speech_encoder, torch.from_numpy(waveform))
    options = {"steps": case.steps, "guidance": case.guidance, "sampler": case.sampler}
    for segment in animate(model, identity, heard, noise, **options):
        yield from to_bytes(segment.frames)


def to_bytes(frames: Tensor) -> np.ndarray:
    return (frames * 255).round().byte().numpy()


@dataclass(frozen=True)
class Clip:
    """What was measured of one video, and `truth` (frames,), the mouth that was meant."""

    tracks: Tracks
    truth: np.ndarray

    @cached_property
    def sync(self) -> float:
        return correlation(self.tracks.opening, self.truth)

    @cached_property
    def lag(self) -> int:
        return best_lag(self.tracks.opening, self.truth)[1]


def measure(model: Hallo3, name: str, folder: Path, clips: int = CLIPS) -> list[Clip]:
    """All clips of a case; those that `folder` has are not made again."""
    reader, done = drawn_reader(), []
    height, _ = model.config.canvas
    folder.mkdir(parents=True, exist_ok=True)
    for index, speech in islice(talks(), clips):
        file = folder / f"{name.replace(' ', '_')}_{index}.npz"
        if not file.exists():
            case = CASES[name]
            likeness = portrait(index + case.person, (height, height)).picture
            frames = np.stack(list(frames_of(model, case, index, speech)))
            np.savez_compressed(file, frames=frames, **vars(track(reader, frames, likeness)))
        with np.load(file) as stored:
            tracks = Tracks(**{key: stored[key] for key in Tracks.__dataclass_fields__})
        done.append(Clip(tracks, mouth_of(speech, FRAMES).opening))
    return done


def swapped(clips: list[Clip]) -> list[float]:
    """The correlation of every clip with what the next one says."""
    others = clips[1:] + clips[:1]
    return [
        correlation(clip.tracks.opening, other.truth)
        for clip, other in zip(clips, others, strict=True)
    ]


def median(values) -> float:
    return float(np.nanmedian(list(values)))


def rows(found: dict[str, list[Clip]]) -> Iterator[str]:
    """A table of medians over the clips of every case."""
    yield "| case | r of the mouth | lag | swapped | mouth's mean opening | identity | seams |"
    yield "|---|---|---|---|---|---|---|"
    for name, clips in found.items():
        numbers = (
            f"{median(clip.sync for clip in clips):.3f}",
            f"{median(clip.lag for clip in clips):+.0f}",
            f"{median(swapped(clips)):.3f}",
            f"{median(clip.tracks.opening.mean() for clip in clips):.4f}",
            f"{median(clip.tracks.distance.mean() for clip in clips):.4f}",
            f"{median(seams(clip.tracks.jump) for clip in clips):.2f}",
        )
        yield f"| {name} | {' | '.join(numbers)} |"


def report(folder: Path, clips: int = CLIPS) -> None:
    """Print the table of the built-in model, case by case."""
    model = builtin.load()
    found = {name: measure(model, name, folder, clips) for name in CASES}
    print("\n".join(rows(found)))
