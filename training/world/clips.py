"""Clips of the world: a person talks, with everything that is known about it.

A clip is named by its split and its index. The person, the speech and the motion each have a
random stream of their own, seeded with (split, index, purpose), so two splits never draw from the
same stream; voices and words are divided between the splits as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hallo3_core.network.config import FPS

from .drawing import Frame, Geometry, draw
from .languages import SPLITS, Split
from .motion import Motion, sway
from .people import Person
from .speech import Speech, record, silence, talk
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
    speech: Speech
    motion: Motion


def stream(split: Split, index: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([SPLITS.index(split), index, PURPOSES.index(purpose)])


def person_of(split: Split, index: int) -> Person:
    return Person.sample(stream(split, index, "person"))


def speech_of(split: Split, index: int, frames: int) -> Speech:
    """What is heard in a clip, of frames / 25 seconds; in some, nobody talks."""
    generator = stream(split, index, "speech")
    seconds = frames / FPS
    quiet = generator.random() < SILENT
    speech = silence(seconds) if quiet else talk(split, seconds, generator)
    return record(speech, generator)


def motion_of(split: Split, index: int, speech: Speech, frames: int) -> Motion:
    energy = loudness(speech.voice, frames).reshape(frames, STEPS).mean(1)
    return sway(frames, stream(split, index, "motion"), energy)


def clip(split: Split, index: int, size: tuple[int, int] = (128, 128), frames: int = 49) -> Clip:
    """The clip of an index, as pictures of (height, width)."""
    speech = speech_of(split, index, frames)
    motion = motion_of(split, index, speech, frames)
    return clip_with(person_of(split, index), speech, motion, size)


def clip_with(person: Person, speech: Speech, motion: Motion, size: tuple[int, int]) -> Clip:
    """Any person saying anything, as long as the motion is."""
    mouth = mouth_of(speech, len(motion))
    drawn = list(render(person, mouth, motion, size))
    pictures = np.stack([frame.picture for frame in drawn])
    geometry = stack([frame.geometry for frame in drawn])
    return Clip(pictures, speech.waveform, mouth, geometry, person, speech, motion)


def render(person: Person, mouth: Mouth, motion: Motion, size: tuple[int, int]) -> Iterator[Frame]:
    """The frames one by one, for videos of any length."""
    for index in range(len(motion)):
        yield draw(person, motion[index], mouth[index], size, index / FPS)


def stack(measures: list[Geometry]) -> Geometry:
    """One geometry with a first axis of frames."""
    tracks = zip(*(vars(measure).values() for measure in measures), strict=True)
    return Geometry(*(np.stack(track) for track in tracks))
