"""Finds where somebody speaks, and turns all other sound to silence.

silero-vad finds speech, if it is installed (requirements-voices.txt). Otherwise, speech is what is
nearly as loud as the loudest parts.
"""

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network.config import SAMPLE_RATE

FADE = 0.05
"""Seconds of the fade at each end of a span of speech."""
AROUND = 0.1
"""Seconds that are kept before and after each span. Consonants at its ends are quiet."""
BREATH = 0.3
"""Seconds. A shorter pause belongs to the speech."""

BLOCKS = 50
"""Blocks in a second. The loudness of each is measured."""
LOUD = 0.95
"""This share of the blocks that are not silent is quieter than the loudest speech."""
BELOW = 20.0
"""Speech is at most so many dB quieter than the loudest speech."""

Span = tuple[float, float]
"""The first and the last second."""


def has_silero() -> bool:
    return find_spec("silero_vad") is not None


def method() -> str:
    """How speech is found. It is part of what decides a segment."""
    return "only speech, by silero-vad" if has_silero() else "only speech, by loudness"


def speech_spans(waveform: Tensor) -> list[Span]:
    """The spans of a waveform (samples,) at 16 kHz in which somebody speaks, in seconds."""
    found = spans_by_silero(waveform) if has_silero() else spans_by_loudness(waveform)
    return joined(found, len(waveform) / SAMPLE_RATE)


def spans_by_silero(waveform: Tensor) -> list[Span]:
    """The spans that silero-vad finds. Its small network is in its package."""
    from silero_vad import get_speech_timestamps, load_silero_vad

    found = get_speech_timestamps(waveform, load_silero_vad(), sampling_rate=SAMPLE_RATE)
    return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in found]


def spans_by_loudness(waveform: Tensor) -> list[Span]:
    """The spans that are at most `BELOW` dB quieter than the loudest speech."""
    size = SAMPLE_RATE // BLOCKS
    blocks = F.pad(waveform, (0, -len(waveform) % size)).unflatten(0, (-1, size))
    power = blocks.square().mean(dim=1)
    if not power.any():
        return []
    loudest = power[power > power.max() * 1e-4].quantile(LOUD)
    loud = (power > loudest * 10 ** (-BELOW / 10)).int()
    edges = F.pad(loud, (1, 1)).diff().nonzero().flatten().view(-1, 2)
    return [(first / BLOCKS, last / BLOCKS) for first, last in edges.tolist()]


def joined(spans: list[Span], seconds: float) -> list[Span]:
    """The spans with `AROUND` at both ends. Spans with less than `BREATH` between them are one."""
    found: list[Span] = []
    for first, last in spans:
        if found and first - found[-1][1] < BREATH:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return [(max(first - AROUND, 0), min(last + AROUND, seconds)) for first, last in found]


def only_speech(waveform: Tensor, spans: list[Span]) -> Tensor:
    """The waveform (samples,) at 16 kHz with silence outside the spans, and fades at their ends."""
    kept = torch.zeros(len(waveform))
    for first, last in spans:
        span = kept[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)]
        rising = torch.arange(len(span)) / (FADE * SAMPLE_RATE)
        span.copy_(torch.minimum(rising, rising.flip(0)).clamp(max=1))
    return waveform * kept
