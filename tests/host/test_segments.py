"""Segments that are made by hand in ComfyUI are the same as those of the core's `animate`."""

import pytest
import torch
from comfyui import Host, Parts, build, noise_audio

from hallo3_core import builtin
from hallo3_core.animate import animate
from hallo3_core.clip.segments import Segment
from hallo3_core.media.picture import read_image
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.sound.sound import Sound
from hallo3_core.speech.encode import encode_speech
from training import finetune
from training.export import save_lora

SEED = 5
STEPS = 3


def core_frames(*job) -> list[torch.Tensor]:
    """The frames that the core computes for the same job, segment by segment."""
    return [segment.frames for segment in core_segments(*job)]


def core_segments(
    host: Host, seconds: float, steps: int, model: Hallo3 | None = None, **settings
) -> list[Segment]:
    model, noise, sound = model or builtin.load(), SeededNoise(SEED), noise_audio(seconds)
    picture = read_image(host.base / "input" / "portrait.png")
    identity = encode_portrait(model.vae, model.reference_network, picture, None, noise)
    waveform = Sound(sound["waveform"][0], sound["sample_rate"]).prepared()
    speech = encode_speech(model.speech_encoder, waveform)
    return list(animate(model, identity, speech, noise, steps=steps, **settings))


def sample(parts: Parts, index: int, **inputs):
    settings = {"steps": STEPS, "guidance": 3.5, "sampler": "sde-dpm++2m", "seed": SEED}
    return parts.segment("Hallo3SampleSegment", index, **settings | inputs)


def test_segments_by_hand_equal_the_core(host):
    """49 frames: the second segment has two."""
    parts = build(seconds=1.96)
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
        previous_frames=first[0],
    )
    graph.keep(first)
    graph.keep(second)
    for frames, expected in zip(host.run(graph), core_frames(host, 1.96, STEPS), strict=True):
        assert frames.shape == expected.shape
        assert (frames - expected).abs().max() < 1e-4


@pytest.mark.parametrize("stage", finetune.ADAPTED)
def test_a_lora_of_fine_tuning_does_in_the_host_what_it_was_trained_to_do(host, stage):
    parts, model = build(seconds=0.2), builtin.load()
    finetune.add_lora(model.denoiser, stage, 4)
    torch.manual_seed(0)
    for name, parameter in model.denoiser.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    folder = host.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_lora(model.denoiser, folder / f"{stage}.safetensors")
    loaded = parts.graph(
        "LoraLoaderModelOnly",
        model=parts.model,
        lora_name=f"{stage}.safetensors",
        strength_model=1.0,
    )
    for used in (loaded, parts.model):
        latent = sample(parts._replace(model=used), 0, steps=1)
        decoded = {"latent": latent, "vae": parts.vae, "identity": parts.identity}
        parts.graph.keep(parts.graph("Hallo3DecodeVAE", **decoded))
    found, plain = host.run(parts.graph)
    [expected] = core_frames(host, 0.2, 1, model)
    assert (found - expected).abs().max() < 1e-3
    assert (plain - expected).abs().max() > 1e-2
