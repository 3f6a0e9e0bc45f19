"""Measures how well the mouth follows the speech."""

import numpy as np

from ..network.config import FPS

MOST_LAG = 10
"""The largest lag that is tried, in frames, in both directions."""


def envelope(waveform: np.ndarray, rate: int, frames: int) -> np.ndarray:
    """The root mean square of a waveform (samples,) in each video frame, (frames,)."""
    edges = np.round(np.arange(frames + 1) / FPS * rate).astype(int)
    power = np.concatenate([[0], np.cumsum(np.square(waveform, dtype=np.float64))])
    power = power[edges.clip(max=len(waveform))]
    return np.sqrt(np.diff(power) / np.diff(edges))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two tracks (frames,). 0 if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    product = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / product) if product > 0 else 0.0


def best_lag(opening: np.ndarray, speech: np.ndarray) -> tuple[float, int]:
    """The largest correlation within `MOST_LAG` frames, and its lag.

    The lag is the number of frames by which the mouth is late. `opening` and `speech` are
    (frames,).
    """
    most = min(MOST_LAG, len(opening) // 2)
    found = {}
    for lag in range(-most, most + 1):
        late = opening[max(lag, 0) : len(opening) + min(lag, 0)]
        early = speech[max(-lag, 0) : len(speech) + min(-lag, 0)]
        found[lag] = correlation(late, early)
    lag = max(found, key=lambda lag: found[lag])
    return found[lag], lag
