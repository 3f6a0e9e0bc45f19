"""Resampling of sound in pieces, so that an hour of sound takes little memory."""

from collections.abc import Iterator
from math import ceil, gcd

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

PIECE = 2**20
"""About as many samples are resampled at once."""
LARGEST_FILTER = 2**20
"""torchaudio makes `target` / gcd filters with at least `rate` / gcd taps each. For 45,731 Hz these
take 8.8 GB. If the product of the two numbers is above this limit, the taps are computed for each
sample instead."""


def resample(waveform: Tensor, rate: int, target: int, **options) -> Tensor:
    """Resample (..., samples) at `rate` Hz to (..., ceil(samples * target / rate)) at `target` Hz.

    `options` are those of `torchaudio.functional.resample`.
    """
    return torch.cat(list(resampled(waveform, rate, target, **options)), dim=-1)


def resampled(waveform, rate: int, target: int, **options) -> Iterator[Tensor]:
    """Yield the result of `resample` in pieces.

    `waveform` needs only a shape and slicing by `[..., a:b]`, so it may be a `SampleFile`.
    """
    shared = gcd(rate, target)
    old, new = rate // shared, target // shared
    if old == new or not waveform.shape[-1]:
        for start in range(0, max(waveform.shape[-1], 1), PIECE):
            yield waveform[..., start : start + PIECE]
    elif old * new <= LARGEST_FILTER:
        yield from _by_filters(waveform, old, new, **options)
    else:
        yield from _by_taps(waveform, old, new, **options)


def _by_filters(waveform, old: int, new: int, **options) -> Iterator[Tensor]:
    """Resample with torchaudio's filters. `old` and `new` are the rates divided by their gcd."""
    samples = waveform.shape[-1]
    margin = old * (ceil(_reach(old, new, **options) / old) + 1)
    step = old * ceil(PIECE / old)
    for start in range(0, samples, step):
        before = min(margin, start)
        part = waveform[..., start - before : start + step + margin]
        found = torchaudio.functional.resample(part, old, new, **options)
        wanted = ceil(min(step, samples - start) * new / old)
        found = found[..., before // old * new :][..., :wanted]
        yield F.pad(found, (0, wanted - found.shape[-1]))


def _by_taps(waveform, old: int, new: int, **options) -> Iterator[Tensor]:
    """Resample with the same filter, but compute the taps for each sample."""
    samples, reach = waveform.shape[-1], _reach(old, new, **options)
    taps = torch.arange(-reach, reach + 1)
    wanted = ceil(samples * new / old)
    step = ceil(PIECE / len(taps))
    for start in range(0, wanted, step):
        time = torch.arange(start, min(start + step, wanted)) * old
        middle, rest = time // new, (time % new).double() / new
        first, last = int(middle[0]) - reach, int(middle[-1]) + reach + 1
        part = waveform[..., max(first, 0) : last]
        before = max(-first, 0)
        part = F.pad(part, (before, last - first - before - part.shape[-1]))
        seen = part.unfold(-1, len(taps), 1)[..., middle - middle[0], :]
        weights = _filter(taps - rest[:, None], old, new, **options).to(part)
        yield (seen * weights).sum(-1)


def _cutoff(old: int, new: int, rolloff: float = 0.99, **_) -> float:
    """The highest frequency that is kept, as a fraction of half the old rate."""
    return min(1, new / old) * rolloff


def _reach(old: int, new: int, lowpass_filter_width: int = 6, **options) -> int:
    """Number of input samples on each side that the filter covers."""
    return ceil(lowpass_filter_width / _cutoff(old, new, **options))


def _filter(
    distance: Tensor, old: int, new: int, lowpass_filter_width: int = 6, **options
) -> Tensor:
    """Values of torchaudio's windowed sinc at some distances, in input samples."""
    cutoff = _cutoff(old, new, **options)
    time = (distance * cutoff).clamp(-lowpass_filter_width, lowpass_filter_width)
    place = time / lowpass_filter_width
    if options.get("resampling_method") == "sinc_interp_kaiser":
        beta = torch.tensor(options["beta"], dtype=time.dtype)
        window = torch.i0(beta * (1 - place**2).sqrt()) / torch.i0(beta)
    else:
        window = torch.cos(place * torch.pi / 2) ** 2
    return torch.sinc(time) * window * cutoff
