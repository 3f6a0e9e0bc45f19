"""The whole job, on the tiny recorded model (canvas 32 x 48)."""

from collections import Counter
from math import cos, pi

import pytest
import torch
from torch import Tensor

from hallo3_core import animate as job
from hallo3_core.animate import animate, seconds_to_decode
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.sampling.fade import FADED_FRAMES, fade_in
from hallo3_core.speech.encode import Speech, encode_speech


@pytest.fixture(scope="module")
def identity(recorded_model):
    picture = torch.rand(3, 40, 70, generator=torch.Generator().manual_seed(1))
    return encode_portrait(
        recorded_model.vae, recorded_model.reference_network, picture, None, SeededNoise(0)
    )


@pytest.fixture(scope="module")
def speech(recorded_model) -> Speech:
    waveform = torch.randn(16_000 * 4 + 1, generator=torch.Generator().manual_seed(2))
    return encode_speech(recorded_model.speech_encoder, waveform)


def video(model, identity, speech, seed=0, **options) -> Tensor:
    options = {"steps": 2, "fade": False, **options}
    segments = list(animate(model, identity, speech, SeededNoise(seed), **options))
    assert [segment.index for segment in segments] == list(range(len(segments)))
    return torch.cat([segment.frames for segment in segments])


def test_video_has_one_frame_for_every_25th_of_a_second(recorded_model, identity, speech):
    frames = video(recorded_model, identity, speech)
    assert speech.frames == 101
    assert frames.shape == (101, 32, 48, 3)
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_a_shorter_speech_is_the_beginning_of_the_same_video(recorded_model, identity, speech):
    whole = video(recorded_model, identity, speech)
    start = video(recorded_model, identity, Speech(speech.features, frames=58))
    assert torch.equal(start, whole[:58])


def test_segments_fade_from_the_one_before(recorded_model, identity, speech):
    """The fade removes the whole jump at the border, and ends after twelve frames."""
    segments, (first, second, third) = (
        list(animate(recorded_model, identity, speech, SeededNoise(0), steps=2, fade=fade))
        for fade in (False, True)
    )
    assert torch.equal(first.frames, segments[0].frames)
    repeated = job.decode_images(recorded_model.vae, segments[1].latents, 2)[1]
    offset = first.frames[-1] - repeated
    assert offset.abs().mean() > 0.01
    for place in range(FADED_FRAMES):
        expected = segments[1].frames[place] + (1 + cos(pi * (place + 1) / 13)) / 2 * offset
        assert (second.frames[place] - expected.clamp(0, 1)).abs().max() < 1e-6
    assert torch.equal(second.frames[FADED_FRAMES:], segments[1].frames[FADED_FRAMES:])
    assert len(third.frames) == 101 - 2 * 47


def test_a_last_segment_may_be_shorter_than_the_fade():
    frames, grey = torch.full((3, 2, 2, 3), 0.5), torch.full((2, 2, 3), 0.5)
    faded = fade_in(frames, grey, grey + 0.18)
    assert faded[:, 0, 0, 0].tolist() == pytest.approx([0.6774, 0.6697, 0.6574], abs=1e-4)


def test_seed_decides(recorded_model, identity, speech):
    start = Speech(speech.features, frames=10)
    first = video(recorded_model, identity, start, seed=7)
    assert torch.equal(first, video(recorded_model, identity, start, seed=7))
    assert (first - video(recorded_model, identity, start, seed=8)).abs().mean() > 0.05


def test_speech_portrait_and_prompt_all_matter(recorded_model, identity, speech):
    start = Speech(speech.features, frames=10)
    frames = video(recorded_model, identity, start)
    config = recorded_model.config
    other_speech = Speech(speech.features.flip(0), frames=10)
    other_picture = torch.rand(3, 40, 70, generator=torch.Generator().manual_seed(5))
    other_identity = encode_portrait(
        recorded_model.vae, recorded_model.reference_network, other_picture, None, SeededNoise(0)
    )
    prompt = torch.ones(1, config.text_tokens, config.text_width)
    for changed in (
        video(recorded_model, identity, other_speech),
        video(recorded_model, other_identity, start),
        video(recorded_model, identity, start, text=prompt),
    ):
        assert (changed - frames).abs().max() > 0.01


def test_a_square_portrait_gives_a_square_video(recorded_model, speech):
    picture = torch.rand(3, 50, 50, generator=torch.Generator().manual_seed(1))
    identity = encode_portrait(
        recorded_model.vae, recorded_model.reference_network, picture, None, SeededNoise(0)
    )
    assert identity.size == (32, 32)
    frames = video(recorded_model, identity, Speech(speech.features, frames=5))
    assert frames.shape == (5, 32, 32, 3)


def test_constants_are_computed_once(recorded_model, identity, speech):
    calls = Counter()

    def count(name):
        return lambda *_: calls.update([name])

    model = recorded_model
    layer = model.denoiser.layers[0]
    hooks = [
        model.audio_projector.register_forward_hook(count("audio tokens")),
        model.denoiser.face_projector.register_forward_hook(count("face tokens")),
        layer.face_attention.key_value.register_forward_hook(count("face keys")),
        layer.audio_attention.key_value.register_forward_hook(count("audio keys")),
        layer.query_key_value.register_forward_hook(count("text and image keys")),
        model.reference_network.register_forward_hook(count("reference network")),
    ]
    video(model, identity, speech, steps=5)
    for hook in hooks:
        hook.remove()
    segments, denoiser_calls = 3, 3 * 5 * 2
    assert calls == {
        "audio tokens": 1 + segments,
        "audio keys": 2 * segments,
        "face tokens": 1,
        "face keys": 1,
        "text and image keys": denoiser_calls + 1,
    }


def test_steps_are_reported(recorded_model, identity, speech):
    done = []
    video(recorded_model, identity, speech, steps=3, on_step=lambda: done.append(1))
    assert len(done) == 3 * speech.segments


def test_initial_noise_is_that_of_the_host(recorded_model):
    """The host is ComfyUI. Its RandomNoise draws torch.randn after torch.manual_seed(seed)."""
    expected = torch.randn(4, 5, generator=torch.manual_seed(43))
    assert torch.equal(SeededNoise(40).stream("initial", 3).normal(4, 5), expected)


def test_streams_are_independent():
    noise = SeededNoise(2**40)
    purposes = [("reference", 0), ("motion", 0), ("motion", 1), ("initial", 0), ("steps", 0)]
    draws = torch.stack([noise.stream(*purpose).normal(10_000) for purpose in purposes])
    correlation = torch.corrcoef(draws) - torch.eye(len(purposes))
    assert correlation.abs().max() < 0.05


def test_decoding_keeps_no_copies_for_convolutions_of_one_frame(recorded_model):
    """diffusers alone keeps the whole input of each of them, gigabytes at full size."""
    vae = recorded_model.vae
    latents = torch.zeros(1, 16, 3, 4, 6)
    _, kept = vae.decoder(latents)

    def size(cache) -> int:
        if cache is None:
            return 0
        return cache.numel() if isinstance(cache, Tensor) else sum(map(size, cache.values()))

    two_frames = 2 * 32 * 48
    assert size(kept) < 32 * two_frames * 12


def test_what_decoding_takes_is_foreseen(identity, monkeypatch):
    """The time for 49 frames is estimated from the first nine."""
    now = [0.0]
    monkeypatch.setattr(job.time, "perf_counter", lambda: now[0])

    def decode(latents: Tensor, frames: int) -> Tensor:
        assert latents.shape[2] == 3
        now[0] += 0.1 * frames
        return torch.zeros(frames)

    assert seconds_to_decode(decode, identity) == pytest.approx(4.9)


def test_a_cpu_convolves_by_onednn(recorded_model):
    """oneDNN is used for small inputs, too.

    For these, torch alone would choose a kernel that is ten times slower.
    """
    latents = torch.zeros(1, 16, 3, 4, 6)
    with torch.no_grad(), torch.profiler.profile() as seen:
        job.decode_images(recorded_model.vae, latents, 9)
    calls = Counter(event.name for event in seen.events())
    assert calls["aten::mkldnn_convolution"] > 10 * calls["aten::slow_conv3d"]
