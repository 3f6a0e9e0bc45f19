"""Where somebody speaks, silence around a sound, and its loudness."""

import math

import pytest
import torch

from hallo3_core import examples
from hallo3_core.errors import InputError
from hallo3_core.sound.levels import TARGET, measured, normalized, with_silence
from hallo3_core.sound.sound import Sound
from hallo3_core.sound.sound_file import read_sound
from hallo3_core.speech.activity import (
    has_silero,
    joined,
    only_speech,
    spans_by_loudness,
    spans_by_silero,
    speech_spans,
)

RATE = 16_000
PAUSE = 5.16, 8.16
"""The seconds of the pause in `paused`."""


def decibels(number: float) -> float:
    return 10 ** (number / 20)


@pytest.fixture(scope="module")
def paused() -> torch.Tensor:
    """The example speech, a pause of three seconds, and the speech again."""
    speech = read_sound(examples.SPEECH).mono(RATE)
    return torch.cat([speech, torch.zeros(3 * RATE), speech])


def noise_of(kind: str, samples: int, speech: torch.Tensor) -> torch.Tensor:
    generator, times = torch.Generator().manual_seed(5), torch.arange(samples) / RATE
    if kind == "hiss":
        return decibels(-45) * torch.randn(samples, generator=generator)
    if kind == "hum":
        return decibels(-40) * torch.sin(2 * math.pi * 50 * times)
    chord = sum(torch.sin(2 * math.pi * pitch * times) for pitch in (220.0, 277.2, 329.6))
    loudness = speech.square().mean().sqrt() / chord.square().mean().sqrt()
    return decibels(-25) * loudness * chord


FINDERS = {"loudness": spans_by_loudness}
if has_silero():
    FINDERS["silero"] = spans_by_silero


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("kind", ["nothing", "hiss", "hum", "music"])
def test_a_pause_is_found(paused, finder, kind):
    """At least 2.5 s of the pause of 3 s are silent, and at least 90 % of the speech is kept."""
    heard = paused if kind == "nothing" else paused + noise_of(kind, len(paused), paused)
    spans = joined(FINDERS[finder](heard), len(heard) / RATE)
    kept = only_speech(heard, spans)
    first, last = (round(edge * RATE) for edge in PAUSE)
    assert (kept[first:last] == 0).sum() > 2.5 * RATE
    speech = torch.cat([kept[:first], kept[last:]])
    whole = torch.cat([heard[:first], heard[last:]])
    assert speech.square().sum() > 0.9 * whole.square().sum()


def test_there_is_no_speech_in_silence():
    assert speech_spans(torch.zeros(RATE)) == []
    assert not only_speech(torch.ones(RATE), []).any()


def test_fades():
    """50 ms at both ends of a span."""
    kept = only_speech(torch.ones(RATE), [(0.25, 0.75)])
    assert not kept[: RATE // 4].any()
    assert kept[RATE // 4 + 400] == pytest.approx(0.5)
    assert kept[RATE // 4 + 800 : RATE * 3 // 4 - 800].min() > 0.99
    assert not kept[RATE * 3 // 4 :].any()


def test_short_pauses_belong_to_the_speech():
    spans = [(1.0, 2.0), (2.2, 3.0), (4.0, 5.0)]
    found = joined(spans, 5.0)
    assert [tuple(round(edge, 6) for edge in span) for span in found] == [(0.9, 3.1), (3.9, 5.0)]


def test_silence_around_a_sound():
    sound = Sound(torch.ones(2, 1000), 1000)
    found = with_silence(sound, 0.5, 0.25)
    waveform = found.waveform[:, :]
    assert waveform.shape == (2, 1750)
    assert not waveform[:, :500].any()
    assert torch.equal(waveform[:, 500:1500], sound.waveform)
    assert not waveform[:, 1500:].any()
    assert with_silence(sound, 0, 0) is sound
    with pytest.raises(InputError, match="The silence is -1 s long: give 0 to 60"):
        with_silence(sound, -1, 0)


@pytest.mark.parametrize("level", [-50, -10, 0])
def test_loudness(paused, level):
    found = normalized(Sound(decibels(level) * paused[None], RATE))
    assert measured(found.mono(RATE)) == pytest.approx(TARGET, abs=0.1)


def test_silence_has_no_loudness():
    for sound in (Sound(torch.zeros(1, RATE), RATE), Sound(torch.ones(1, 100), RATE)):
        assert normalized(sound) is sound
