"""Wrong sounds are explained in one sentence, and unusual ones are understood."""

import inspect

import numpy as np
import pytest
import torch
from comfyui import Graph, Host, Out, Parts, build, fails, given
from test_animate_portrait import animated

TONE = 0.5 * torch.sin(torch.arange(16_000.0) / 10)[None, None]


def test_audio_without_length(host):
    parts = build(seconds=0)
    parts.graph.keep(parts.speech)
    fails(host, parts.graph, "The speech is empty")


def speech_of(host: Host, parts: Parts, audio: object) -> Parts:
    encoder = parts.graph.nodes[parts.speech.link[0]]["inputs"]["speech_encoder"]
    speech = parts.graph(
        "Hallo3EncodeSpeech",
        audio=given(host, parts.graph, "AUDIO", audio),
        speech_encoder=Out(*encoder),
    )
    return parts._replace(speech=speech)


NO_SOUNDS = [
    ({"waveform": TONE}, "has no sample_rate"),
    ({"waveform": TONE, "sample_rate": 0}, "The sample rate of the sound is 0 Hz"),
    ({"waveform": TONE * float("nan"), "sample_rate": 16_000}, "that are NaN or infinite"),
    ({"waveform": TONE[..., :0], "sample_rate": 16_000}, "is empty"),
    ({"waveform": TONE.mT, "sample_rate": 16_000}, "16,000 channels of 1 samples: swap"),
    ("sound.wav", "is a str, not a sound"),
]


@pytest.mark.parametrize(("audio", "says"), [*NO_SOUNDS, (None, "is nothing, not a sound")])
def test_speech_that_is_no_sound(host, parts, audio, says):
    parts.graph.keep(speech_of(host, parts, audio).speech)
    fails(host, parts.graph, says)
    isolated = given(host, graph := Graph(), "AUDIO", audio)
    graph.keep(graph("Hallo3IsolateVocals", audio=isolated, model_name="none: pass the sound on"))
    fails(host, graph, says)


@pytest.mark.parametrize(("audio", "says"), NO_SOUNDS)
def test_a_soundtrack_that_is_no_sound_is_told_before_sampling(
    host, parts, monkeypatch, audio, says
):
    animate = inspect.getmodule(host.nodes.NODE_CLASS_MAPPINGS["Hallo3AnimatePortrait"])
    monkeypatch.setattr(animate, "render", None)
    parts.graph.keep(animated(parts, soundtrack=given(host, parts.graph, "AUDIO", audio)))
    fails(host, parts.graph, says)


@pytest.mark.parametrize(
    "audio",
    [
        {"waveform": TONE[0], "sample_rate": 16_000.0},
        {"waveform": TONE.half(), "sample_rate": np.int64(16_000)},
        {"waveform": (TONE * 32_767).short(), "sample_rate": torch.tensor(16_000)},
        {"waveform": TONE.expand(1, 9, -1), "sample_rate": 16_000},
    ],
)
def test_sound_of_other_packs(host, parts, audio):
    speech = speech_of(host, parts, audio).speech
    for output in (speech, speech[1], speech[2]):
        parts.graph.keep(output)
    heard, duration, frames = host.run(parts.graph)
    assert (duration, frames) == (1.0, 25)
    assert (heard.sound.rate, heard.sound.channels) == (16_000, 1)
    assert (heard.sound.cut(0, 1) - TONE[0]).abs().max() < 1e-3


def test_silent_speech_is_a_warning(host, parts, caplog):
    parts.graph.keep(speech_of(host, parts, {"waveform": 0 * TONE, "sample_rate": 16_000}).speech)
    host.run(parts.graph)
    assert "The speech is silent" in caplog.text
