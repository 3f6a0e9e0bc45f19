"""Segments by hand in the real host agree with the core's `animate`."""

import torch
from comfyui import Host, Parts, noise_audio

from hallo3_core import builtin
from hallo3_core.animate import animate
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait import encode_portrait, read_image
from hallo3_core.speech import encode_speech, prepare_waveform

SEED = 5
STEPS = 3


def core_frames(host: Host, seconds: float, steps: int) -> list[torch.Tensor]:
    """What the core makes of the same job, segment by segment."""
    model, noise, sound = builtin.load(), SeededNoise(SEED), noise_audio(seconds)
    picture = read_image(host.base / "input" / "portrait.png")
    identity = encode_portrait(model.vae, model.reference_network, picture, None, noise)
    waveform = prepare_waveform(sound["waveform"][0], sound["sample_rate"])
    speech = encode_speech(model.speech_encoder, waveform)
    return [segment.frames for segment in animate(model, identity, speech, noise, steps=steps)]


def sample(parts: Parts, index: int, **inputs):
    settings = {"steps": STEPS, "guidance": 3.5, "sampler": "sde-dpm++2m", "seed": SEED}
    return parts.graph(
        "Hallo3SampleSegment",
        model=parts.model,
        identity=parts.identity,
        speech=parts.speech,
        segment_index=index,
        **settings | inputs,
    )


def test_segments_by_hand_equal_the_core(host, parts):
    graph = parts.graph
    first = graph(
        "Hallo3DecodeVAE", latent=sample(parts, 0), vae=parts.vae, identity=parts.identity
    )
    motion = graph(
        "Hallo3ExtendWithMotionFrames",
        frames=first[1],
        identity=parts.identity,
        vae=parts.vae,
        segment_index=1,
        seed=SEED,
    )
    second = graph(
        "Hallo3DecodeVAE",
        latent=sample(parts, 1, motion=motion),
        vae=parts.vae,
        identity=parts.identity,
    )
    graph.keep(first)
    graph.keep(second)
    for frames, expected in zip(host.run(graph), core_frames(host, 2.5, STEPS), strict=True):
        assert frames.shape == expected.shape
        assert (frames - expected).abs().max() < 1e-4
