"""Sound at another rate."""

from math import ceil, gcd

import torch.nn.functional as F
import torchaudio
from torch import Tensor

LARGEST_RATIO = 1000


def resample(waveform: Tensor, rate: int, target: int, **options) -> Tensor:
    """(..., samples) at `rate` Hz to ceil(samples * target / rate) at `target` Hz.

    torchaudio's filter has rate * target / gcd^2 taps, so rates that share little with the target
    go to their nearest 100 Hz by linear interpolation first, which is less than 1 % away.
    `options` are torchaudio's.
    """
    samples = ceil(waveform.shape[-1] * target / rate)
    if rate // gcd(rate, target) > LARGEST_RATIO:
        round_rate = max(100 * round(rate / 100), 100)
        rows = waveform.reshape(1, -1, waveform.shape[-1])
        rows = F.interpolate(rows, scale_factor=round_rate / rate, mode="linear")
        waveform, rate = rows.reshape(*waveform.shape[:-1], -1), round_rate
    resampled = torchaudio.functional.resample(waveform, rate, target, **options)
    return F.pad(resampled, (0, samples - resampled.shape[-1]))
