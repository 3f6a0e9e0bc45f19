"""Sound at another rate, in pieces, so that an hour of it takes little memory."""

from collections.abc import Iterator
from math import ceil, gcd

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

PIECE = 2**20
"""Samples that are resampled at once, about."""
LARGEST_FILTER = 2**20
"""torchaudio makes a filter for each of `target` / gcd moments, with at least `rate` / gcd taps
each, which for 45,731 Hz is 8.8 GB. Where these multiply to more than this, taps are computed for
each sample."""


def resample(waveform: Tensor, rate: int, target: int, **options) -> Tensor:
    """(..., samples) at `rate` Hz to ceil(samples * target / rate) at `target` Hz.

    `options` are torchaudio's.
    """
    return torch.cat(list(resampled(waveform, rate, target, **options)), dim=-1)


def resampled(waveform, rate: int, target: int, **options) -> Iterator[Tensor]:
    """The pieces of what `resample` gives; of `waveform` parts are taken by `[..., a:b]`."""
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
    """The same filter, computed for each sample anew."""
    samples, reach = waveform.shape[-1], _reach(old, new, **options)
    taps = torch.arange(-reach, reach + 1)
    wanted = ceil(samples * new / old)
    step = ceil(PIECE / len(taps))
    for start in range(0, wanted, step):
        time = torch.arange(start, min(start + step, wanted)) * old
        middle, rest = time // new, (time % new).double() / new
        first, last = middle[0].item() - reach, middle[-1].item() + reach + 1
        part = waveform[..., max(first, 0) : last]
        before = max(-first, 0)
        part = F.pad(part, (before, last - first - before - part.shape[-1]))
        seen = part.unfold(-1, len(taps), 1)[..., middle - middle[0], :]
        weights = _filter(taps - rest[:, None], old, new, **options).to(part)
        yield (seen * weights).sum(-1)


def _cutoff(old: int, new: int, rolloff: float = 0.99, **_) -> float:
    """The highest frequency that is kept, as a share of half the old rate."""
    return min(1, new / old) * rolloff


def _reach(old: int, new: int, lowpass_filter_width: int = 6, **options) -> int:
    """Samples to each side that a filter sees."""
    return ceil(lowpass_filter_width / _cutoff(old, new, **options))


def _filter(
    distance: Tensor, old: int, new: int, lowpass_filter_width: int = 6, **options
) -> Tensor:
    """torchaudio's windowed sinc, of samples at some distance."""
    cutoff = _cutoff(old, new, **options)
    time = (distance * cutoff).clamp(-lowpass_filter_width, lowpass_filter_width)
    place = time / lowpass_filter_width
    if options.get("resampling_method") == "sinc_interp_kaiser":
        beta = torch.tensor(options["beta"], dtype=time.dtype)
        window = torch.i0(beta * (1 - place**2).sqrt()) / torch.i0(beta)
    else:
        window = torch.cos(place * torch.pi / 2) ** 2
    return torch.sinc(time) * window * cutoff
