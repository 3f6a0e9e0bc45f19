"""Resampling of sounds."""

import pytest
import torch
import torchaudio

from hallo3_core.sound import resample as resample_module
from hallo3_core.sound.resample import resample
from hallo3_core.speech.vocals import FILTER


@pytest.mark.parametrize(
    ("rate", "target", "options"),
    [(48_000, 16_000, {}), (44_100, 48_000, {}), (11_025, 16_000, {}), (44_100, 48_000, FILTER)],
)
def test_pieces_and_taps_are_the_whole_filter(monkeypatch, rate, target, options):
    waveform = torch.randn(2, 50_001, generator=torch.Generator().manual_seed(0))
    expected = torchaudio.functional.resample(waveform, rate, target, **options)
    monkeypatch.setattr(resample_module, "PIECE", 7_000)
    pieces = resample(waveform, rate, target, **options)
    assert torch.equal(pieces, expected)
    monkeypatch.setattr(resample_module, "LARGEST_FILTER", 0)
    assert (resample(waveform, rate, target, **options) - expected).abs().max() < 1e-3


@pytest.mark.parametrize("rate", [45_731, 44_101, 191_999, 8_001])
@pytest.mark.parametrize("target", [16_000, 48_000])
def test_a_rate_that_shares_nothing_with_the_target(monkeypatch, rate, target):
    """torchaudio would make a filter of up to 8.8 GB for these rates."""
    monkeypatch.setattr(torchaudio.functional, "resample", None)
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(rate // 4) / rate)
    found = resample(tone[None], rate, target)[0]
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(len(found)) / target)
    assert len(found) == -(-(rate // 4) * target // rate)
    assert (found - expected)[500:-500].abs().max() < 1e-3
