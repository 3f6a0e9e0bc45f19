"""Sound from other programs is used, or one sentence says why it cannot be used."""

import numpy as np
import pytest
import torch

from hallo3_core.errors import InputError
from hallo3_core.sound.audio import read_audio, sound_of_audio

TONE = 0.5 * torch.sin(torch.arange(16_000.0) / 10)[None, None]


@pytest.mark.parametrize(
    ("waveform", "close"),
    [
        (TONE, 0),
        (TONE.half(), 1e-3),
        (TONE.bfloat16(), 2e-3),
        (TONE.double(), 0),
        ((TONE * 32_768).short(), 1e-4),
        ((TONE * 2**31).int(), 1e-6),
        ((TONE * 128 + 128).byte(), 0.01),
        (TONE[0], 0),
        (TONE[0, 0], 0),
        (TONE.numpy(), 0),
        (TONE.tolist(), 0),
        (TONE.clone().requires_grad_(), 0),
        (TONE.expand(2, 2, -1), 0),
        (TONE.expand(1, 9, -1), 1e-6),
    ],
)
def test_waveforms_of_any_kind(waveform, close):
    sound = sound_of_audio({"waveform": waveform, "sample_rate": 16_000}, "The speech")
    waveform = sound.waveform[:, :]
    assert waveform.dtype == torch.float32
    assert waveform.shape in ((1, 16_000), (2, 16_000))
    assert (waveform - TONE[0]).abs().max() <= close
    assert not waveform.requires_grad


@pytest.mark.parametrize("rate", [44_100.0, np.int64(44_100), np.float32(44_100), "44100"])
def test_rates_of_any_kind(rate):
    for given in (rate, torch.tensor(44_100)):
        sound = sound_of_audio({"waveform": TONE, "sample_rate": given}, "The speech")
        assert sound.rate == 44_100
        assert type(sound.rate) is int


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (None, "The speech is nothing, not a sound"),
        (TONE, "The speech is a Tensor, not a sound"),
        ({"waveform": TONE}, "The speech has no sample_rate"),
        ({"sample_rate": 16_000}, "The speech has no waveform"),
        ({"waveform": TONE, "sample_rate": None}, "The speech has no sample_rate"),
        ({"waveform": TONE, "sample_rate": "fast"}, "sample rate of the speech is 'fast'"),
        ({"waveform": TONE, "sample_rate": float("nan")}, "sample rate of the speech is nan"),
        ({"waveform": TONE, "sample_rate": float("inf")}, "sample rate of the speech is inf"),
        ({"waveform": TONE, "sample_rate": 0}, "sample rate of the sound is 0 Hz"),
        ({"waveform": TONE, "sample_rate": -16_000}, "sample rate of the sound is -16,000 Hz"),
        (
            {"waveform": TONE, "sample_rate": 4_000_000},
            "The sample rate of the sound is 4,000,000 Hz",
        ),
        ({"waveform": "a.wav", "sample_rate": 16_000}, "waveform of the speech is a str"),
        (
            {"waveform": TONE[None], "sample_rate": 16_000},
            r"is \(1, 1, 1, 16000\) of torch.float32",
        ),
        ({"waveform": TONE[0, 0, 0], "sample_rate": 16_000}, r"is \(\) of torch.float32"),
        ({"waveform": TONE.bool(), "sample_rate": 16_000}, "of torch.bool"),
        ({"waveform": TONE.cfloat(), "sample_rate": 16_000}, "of torch.complex64"),
        ({"waveform": TONE[..., :0], "sample_rate": 16_000}, "The speech is empty"),
        ({"waveform": TONE[:, :0], "sample_rate": 16_000}, "The speech is empty"),
        ({"waveform": TONE[:0], "sample_rate": 16_000}, "The speech is empty"),
        ({"waveform": TONE.mT, "sample_rate": 16_000}, "16,000 channels of 1 samples: swap"),
        ({"waveform": TONE / TONE, "sample_rate": 16_000}, "1 samples that are NaN or infinite"),
        ({"waveform": TONE.double() * 1e300, "sample_rate": 16_000}, "that are NaN or infinite"),
    ],
)
def test_what_is_no_sound(audio, says):
    with pytest.raises(InputError, match=says) as error:
        sound_of_audio(audio, "The speech")
    assert "\n" not in str(error.value)


def test_a_batch_stays_one(caplog):
    waveform, rate = read_audio(
        {"waveform": TONE.expand(3, 2, -1), "sample_rate": 8e3}, "The audio"
    )
    assert (waveform.shape, rate) == ((3, 2, 16_000), 8000)
    sound_of_audio({"waveform": waveform, "sample_rate": rate}, "The soundtrack")
    assert "The soundtrack is a batch of 3 sounds: only the first is used." in caplog.text


def test_many_channels_that_cancel_out(caplog):
    waveform = torch.cat([TONE, -TONE, 0 * TONE], 1)
    sound = sound_of_audio({"waveform": waveform, "sample_rate": 16_000}, "The speech")
    assert torch.allclose(sound.waveform[:, :], TONE[0])
    assert "cancel each other out" in caplog.text
