"""How the head moves while a person speaks: smooth tracks, one number for each frame."""

from dataclasses import dataclass

import numpy as np

from hallo3_core.network.config import FPS

BLINK = 0.15
"""Duration of a blink in seconds."""


@dataclass(frozen=True)
class Motion:
    """Tracks (frames,), float64. Shifts are in half face heights, angles in radians."""

    x: np.ndarray
    y: np.ndarray
    roll: np.ndarray
    scale: np.ndarray
    yaw: np.ndarray
    """Positive to the picture's right."""
    pitch: np.ndarray
    """Positive upwards."""
    eyes: np.ndarray
    """1 open, 0 shut."""
    brows: np.ndarray
    """How far the brows are raised, -1 to 1."""
    look_x: np.ndarray
    look_y: np.ndarray
    """Where the eyes look, -1 to 1."""

    def __getitem__(self, frame: int | slice) -> "Motion":
        return Motion(*(track[frame] for track in vars(self).values()))

    def __len__(self) -> int:
        return len(self.x)


def still(frames: int) -> Motion:
    tracks = {name: np.zeros(frames) for name in Motion.__dataclass_fields__}
    return Motion(**tracks | {"scale": np.ones(frames), "eyes": np.ones(frames)})


def sway(frames: int, generator: np.random.Generator, energy: np.ndarray | None = None) -> Motion:
    """The motion of a talking person. `energy` (frames,) is the loudness of the speech, 0 to 1."""
    lively = generator.choice((0, generator.uniform(0.2, 0.6), generator.uniform(0.6, 1.2)))
    energy = np.zeros(frames) if energy is None else _slow(energy)

    def drift(size: float, quick: float = 1.0) -> np.ndarray:
        return lively * size * _noise(frames, quick, generator)

    return Motion(
        x=drift(0.05),
        y=drift(0.03),
        roll=drift(0.05),
        scale=1 + drift(0.015, 0.6),
        yaw=drift(0.16),
        pitch=drift(0.09) + lively * generator.uniform(-0.03, 0.06) * energy,
        eyes=_blinks(frames, generator),
        brows=drift(0.4, 0.7) + generator.uniform(0, 0.6) * energy,
        look_x=drift(0.45, 0.6),
        look_y=drift(0.25, 0.6),
    )


def _noise(frames: int, quick: float, generator: np.random.Generator) -> np.ndarray:
    """A sum of waves of 0.1 to 0.9 Hz, about -1 to 1."""
    times = np.arange(frames)[:, None] / FPS
    rates, phases = generator.uniform(0.1, 0.9, 4) * quick, generator.uniform(0, 2 * np.pi, 4)
    return np.sin(2 * np.pi * rates * times + phases) @ generator.dirichlet(np.ones(4))


def _blinks(frames: int, generator: np.random.Generator) -> np.ndarray:
    times = np.arange(frames) / FPS
    eyes, moment = np.ones(frames), generator.uniform(0, 4)
    while moment < frames / FPS:
        distance = np.abs(times - moment) / (BLINK / 2)
        eyes = np.minimum(eyes, np.clip(distance, 0, 1.6) ** 2 / 1.6**2)
        moment += 0.4 + generator.exponential(2.6)
    return eyes


def _slow(track: np.ndarray) -> np.ndarray:
    window = np.hanning(17)[1:-1]
    padded = np.pad(track, 7, mode="edge")
    return np.convolve(padded, window / window.sum(), "valid")
