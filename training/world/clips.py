"""Clips of the drawn world: a person talks, and the exact geometry of each frame is known.

A split and an index name a clip. Person, speech and motion each have their own random numbers,
seeded with (split, index, purpose). So two splits never share random numbers, and they share no
voices and no words.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hallo3_core.network.config import FPS

from .drawing import Frame, Geometry, draw
from .languages import SPLITS, Split
from .motion import Motion, sway
from .people import Person
from .speech import Utterance, record, silence, talk
from .visemes import STEPS, Mouth, loudness, mouth_of

PURPOSES = ("person", "speech", "motion")
SILENT = 0.05
"""Share of the clips in which nobody talks."""


@dataclass(frozen=True)
class Clip:
    """`frames` (F, height, width, 3) uint8, `waveform` (F * 640,) float32 at 16 kHz; the tracks of
    `mouth`, `motion` and `geometry` have F entries."""

    frames: np.ndarray
    waveform: np.ndarray
    mouth: Mouth
    geometry: Geometry
    person: Person
    speech: Utterance
    motion: Motion


def stream(split: Split, index: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([SPLITS.index(split), index, PURPOSES.index(purpose)])


def person_of(split: Split, index: int) -> Person:
    return Person.sample(stream(split, index, "person"))


def speech_of(split: Split, index: int, frames: int) -> Utterance:
    """The sound of a clip of frames / 25 seconds. In some clips nobody talks."""
    generator = stream(split, index, "speech")
    seconds = frames / FPS
    quiet = generator.random() < SILENT
    speech = silence(seconds) if quiet else talk(split, seconds, generator)
    return record(speech, generator)


def motion_of(split: Split, index: int, speech: Utterance, frames: int) -> Motion:
    energy = loudness(speech.voice, frames).reshape(frames, STEPS).mean(1)
    return sway(frames, stream(split, index, "motion"), energy)


def clip(split: Split, index: int, size: tuple[int, int] = (128, 128), frames: int = 49) -> Clip:
    """The clip with an index, in frames of (height, width)."""
    speech = speech_of(split, index, frames)
    motion = motion_of(split, index, speech, frames)
    return clip_with(person_of(split, index), speech, motion, size)


def clip_with(person: Person, speech: Utterance, motion: Motion, size: tuple[int, int]) -> Clip:
    """A clip of any person with any speech, as long as the motion."""
    mouth = mouth_of(speech, len(motion))
    drawn = list(render(person, mouth, motion, size))
    pictures = np.stack([frame.picture for frame in drawn])
    geometry = stack([frame.geometry for frame in drawn])
    return Clip(pictures, speech.waveform, mouth, geometry, person, speech, motion)


def render(person: Person, mouth: Mouth, motion: Motion, size: tuple[int, int]) -> Iterator[Frame]:
    """The frames one by one, so that a video may be of any length."""
    for index in range(len(motion)):
        yield draw(person, motion[index], mouth[index], size, index / FPS)


def stack(measures: list[Geometry]) -> Geometry:
    """One geometry of all frames, with a first axis of frames."""
    tracks = zip(*(vars(measure).values() for measure in measures), strict=True)
    return Geometry(*(np.stack(track) for track in tracks))
