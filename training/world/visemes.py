# ruff: noqa: RUF001
"""The shape of the mouth while phonemes are spoken.

Each letter of a phoneme's IPA name has a shape. A shape is held while it sounds, then smoothed,
because neighbouring sounds change each other, and a louder voice opens the mouth wider. Closed lips
stay closed for at least one frame.
"""

from dataclasses import dataclass

import numpy as np

from hallo3_core.network.config import FPS, SAMPLE_RATE

from .speech import Phoneme, Utterance

STEPS = 8
"""Steps in a frame: shapes are smoothed on a grid of 5 ms."""
GRID = FPS * STEPS
SMOOTHING = 0.13
"""Length of the smoothing window in seconds. Half of its weight is in the middle half."""
CLOSURE, RELEASE = 0.08, 0.03
"""Least time that lips stay closed, and the time that they take to open, in seconds."""

SHUT = frozenset("pbmɓʙɱ")
SHAPES = {
    letter: shape
    for letters, shape in {
        "aɑ": (1.0, 0.2, 0.0),
        "æ": (0.85, 0.6, 0.0),
        "ɐʌ": (0.8, 0.1, 0.0),
        "ɛ": (0.6, 0.55, 0.0),
        "e": (0.5, 0.75, 0.0),
        "əɜɘɚɝɤ": (0.45, 0.0, 0.0),
        "iɪᵻ": (0.3, 1.0, 0.0),
        "ɨɯ": (0.3, 0.5, 0.0),
        "ɒ": (0.8, -0.2, 0.4),
        "ɔ": (0.7, -0.4, 0.65),
        "oɵɞ": (0.5, -0.6, 0.85),
        "œ": (0.55, -0.3, 0.7),
        "øʏ": (0.4, -0.5, 0.85),
        "uʊyʉ": (0.28, -0.9, 1.0),
        "wʍɥ": (0.18, -1.0, 1.0),
        "pbmɓʙɱ": (0.0, 0.0, 0.0),
        "fvɸβʋ": (0.1, 0.1, 0.0),
        "tdnszlɾrɫθðɬɮⱱɗʈɖɳɭʂʐ": (0.2, 0.25, 0.0),
        "jʲʝçɲɕʑʎ": (0.22, 0.6, 0.0),
        "ʃʒʧʤ": (0.22, -0.5, 0.6),
        "ɹɻʁʀ": (0.25, -0.3, 0.3),
        "kɡgxɣŋqχhɦħʔcɟɰʕɢɴ": (0.3, 0.1, 0.0),
    }.items()
    for letter in letters
}
"""Opening, width and rounding of the letters of the phonetic alphabet."""


@dataclass(frozen=True)
class Mouth:
    """Shapes of the mouth, one for each frame or a single one: float32.

    `opening` goes from 0, shut, to 1; `width` from -1, narrow, to 1; `rounding` from 0 to 1.
    """

    opening: np.ndarray
    width: np.ndarray
    rounding: np.ndarray

    def __getitem__(self, frame: int | slice) -> "Mouth":
        return Mouth(self.opening[frame], self.width[frame], self.rounding[frame])

    def __len__(self) -> int:
        return len(self.opening)


def loudness(voice: np.ndarray, frames: int) -> np.ndarray:
    """(frames * STEPS,), 0 to 1: the root mean square around every step relative to the
    loud parts of the voice, in a 60 ms window."""
    steps = frames * STEPS
    hop = SAMPLE_RATE // GRID
    power = np.zeros(steps * hop)
    power[: len(voice)] = np.square(voice[: steps * hop], dtype=np.float64)
    level = np.sqrt(_smooth(power.reshape(steps, hop).mean(1), 0.12))
    sounding = level[level > 0.02 * level.max()]
    return np.minimum(level / np.quantile(sounding, 0.9), 1) if len(sounding) else level


def mouth_of(speech: Utterance, frames: int) -> Mouth:
    """The mouth in each frame of a speech. Frame f shows f/25 to (f + 1)/25 seconds."""
    shapes, gate = _targets(speech.phonemes, frames * STEPS)
    opening, width, rounding = (_smooth(track, SMOOTHING) for track in shapes)
    opening = opening * gate * np.sqrt(loudness(speech.voice, frames))
    means = (t.reshape(frames, STEPS).mean(1) for t in (opening, width, rounding))
    return Mouth(*(track.astype(np.float32) for track in means))


def still_mouth(opening: float = 0, width: float = 0, rounding: float = 0) -> Mouth:
    return Mouth(*(np.float32(value) for value in (opening, width, rounding)))


def _targets(phonemes: tuple[Phoneme, ...], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(3, steps) shapes, each held while it sounds; (steps,) 0 where lips close, 1 elsewhere."""
    shapes, gate = np.zeros((3, steps)), np.ones(steps)
    times = (np.arange(steps) + 0.5) / GRID
    for phoneme in phonemes:
        letters = [letter for letter in phoneme.name if letter in SHAPES]
        share = phoneme.duration / max(len(letters), 1)
        for place, letter in enumerate(letters):
            start = phoneme.start + place * share
            shapes[:, (times >= start) & (times < start + share)] = np.c_[SHAPES[letter]].T
            if letter in SHUT:
                beyond = np.abs(times - start - share / 2) - max(share, CLOSURE) / 2
                gate = np.minimum(gate, np.clip(beyond / RELEASE, 0, 1))
    return shapes, gate


def _smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    window = np.hanning(round(seconds * GRID) + 2)[1:-1]
    return np.convolve(track, window / window.sum(), "same")
