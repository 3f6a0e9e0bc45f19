from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from hallo3_core import builtin
from hallo3_core.autoencoder.motion import motion_latents
from hallo3_core.sound.sound import Sound
from hallo3_core.speech import encode as speech_module
from hallo3_core.speech.encode import Speech, encode_speech
from hallo3_core.speech.windows import segment_windows, windows


@pytest.mark.parametrize(
    ("samples", "frames", "padded"),
    [(1, 1, 49), (640, 1, 49), (641, 2, 49), (4480, 7, 49), (31_360, 49, 49), (31_361, 50, 98)],
)
def test_frames_cover_the_speech(recorded_model, samples, frames, padded):
    speech = encode_speech(recorded_model.speech_encoder, torch.randn(samples))
    assert speech.frames == frames
    assert speech.features.shape == (padded, 12, 8)


def test_silence_is_encoded(recorded_model):
    speech = encode_speech(recorded_model.speech_encoder, torch.zeros(16_000))
    assert speech.features.isfinite().all()


def test_loudness_does_not_matter(recorded_model):
    waveform = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    loud, quiet = (
        encode_speech(recorded_model.speech_encoder, waveform * gain).features for gain in (1, 0.1)
    )
    assert (loud - quiet).abs().max() < 1e-3


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 44_101, 95_999, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_any_rate_and_channel_count_becomes_16_khz_mono(rate, channels):
    seconds = torch.arange(rate // 2) / rate
    tone = torch.sin(2 * torch.pi * 440 * seconds).expand(channels, -1)
    waveform = Sound(tone.float(), rate).prepared()
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 16_000)
    assert waveform.shape == (8000,)
    middle = slice(1000, 7000)
    assert (waveform - expected)[middle].abs().max() < 0.015


def test_windows_are_clamped_at_both_ends():
    features = torch.arange(6.0)[:, None, None].expand(-1, 12, 1)
    around = windows(features, 0, 6)[:, :, 0, 0]
    assert around.tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5, 5],
        [3, 4, 5, 5, 5],
    ]


def test_segments_hear_what_their_frames_show():
    features = (1 + torch.arange(100.0))[:, None, None].expand(-1, 12, 1)
    heard = [segment_windows(features, i)[0, :, 2, 0, 0] for i in range(3)]
    assert heard[0].tolist() == [0, 0, *range(1, 48)]
    assert heard[1].tolist() == list(range(46, 95))
    assert heard[2].tolist() == [*range(93, 101), *[100] * 41]


class Stream:
    def uniform(self, *shape):
        return torch.linspace(0, 1, shape[0] * shape[1]).reshape(shape)


def test_features_in_a_file_give_the_same_segments():
    features = torch.randn(147, 12, 8)
    filed = Speech(features, frames=130).on_disk().features
    assert len(filed) == 147
    for index in range(3):
        assert torch.equal(segment_windows(filed, index), segment_windows(features, index))


def test_a_tenth_of_the_motion_pixels_is_dropped(recorded_model, monkeypatch):
    encoded = []

    def encode(vae, frames, noise):
        encoded.append(frames)
        return torch.ones(1, 16, 1, 4, 6)

    monkeypatch.setattr("hallo3_core.autoencoder.motion.encode", encode)
    portrait = torch.full((1, 3, 32, 48), 0.25)
    motion = torch.full((1, 3, 2, 32, 48), 0.75)
    latents = motion_latents(recorded_model.vae, portrait, motion, Stream())
    assert latents.shape == (1, 16, 13, 4, 6)
    assert (latents[:, :, 0] == 1).all()
    assert (latents[:, :, 1:] == 0).all()
    assert (encoded[0][:, :, 0] == 0.25).all()
    assert (encoded[0][:, :, 1:] == 0).float().mean().item() == pytest.approx(0.1, abs=0.001)
    assert set(encoded[0][:, :, 1:].unique().tolist()) == {0.0, 0.75}


def test_long_speech_is_the_same_in_little_memory(monkeypatch):
    """Attention and the norm are over the whole speech. They are computed window by window."""
    encoder = builtin.load().speech_encoder
    samples = 16_000 * 31 + 77
    loudness = 1 + torch.sin(torch.arange(samples) / 20_000)
    waveform = torch.randn(samples, generator=torch.Generator().manual_seed(1)) * loudness
    expected = encode_speech(encoder, waveform)
    monkeypatch.setattr(speech_module, "LONGEST_PASS", 100)
    found = encode_speech(encoder, waveform)
    assert found.frames == expected.frames
    assert isinstance(found.features, speech_module.FeatureFile)
    assert found.features.shape == expected.features.shape
    error = (found.features[:] - expected.features).abs().max()
    assert error < 1e-4 * expected.features.std()
    assert torch.equal(found.features[100:107], found.features[:][100:107])


@pytest.mark.parametrize("longest", [speech_module.LONGEST_PASS, 20])
def test_two_threads_encode_at_once(monkeypatch, longest):
    """Both threads are inside the same encoder at the same time."""
    monkeypatch.setattr(speech_module, "LONGEST_PASS", longest)
    encoder = builtin.load().speech_encoder
    generator = torch.Generator().manual_seed(2)
    waveforms = [torch.randn(samples, generator=generator) for samples in (60_000, 19_000)]
    waveforms[0] *= torch.linspace(0, 1, 60_000) ** 4
    alone = [encode_speech(encoder, waveform).features[:] for waveform in waveforms]
    barrier = Barrier(2)

    def meet(*_) -> None:
        barrier.wait(timeout=60)

    encoder.feature_extractor.conv_layers[0].conv.register_forward_pre_hook(meet)
    with ThreadPoolExecutor(2) as pool:
        encoded = pool.map(encode_speech, [encoder, encoder], waveforms)
        together = [speech.features[:] for speech in encoded]
    for found, expected in zip(together, alone, strict=True):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-5
