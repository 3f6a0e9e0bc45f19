"""A sound is read once, for the animation and for the video: channels, times and parts."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from hallo3_core.sound.sound import SampleFile, Sound, for_aac, silence_warning
from hallo3_core.sound.sound_file import read_sound
from sound_files import MASK_5_1, RATE, correlation, lag, voice, write, write_wav


def test_one_inverted_channel_does_not_silence_the_speech(tmp_path, caplog):
    speech = voice()
    sound = read_sound(write_wav(tmp_path / "s.wav", np.concatenate([speech, -speech], 1), RATE))
    assert correlation(sound.mono(), speech) > 0.999
    assert "The channels of the sound cancel each other" in caplog.text
    assert correlation(sound.cut(0, 2)[1], -speech) > 0.999


def test_two_different_channels_have_their_mean(tmp_path, caplog):
    left, right = voice(seed=1), voice(seed=2)
    sound = read_sound(write_wav(tmp_path / "s.wav", np.concatenate([left, right], 1), RATE))
    assert np.abs(sound.mono().numpy() - (left + right)[:, 0] / 2).max() < 1e-4
    assert caplog.text == ""


@pytest.mark.parametrize(("channels", "speaks"), [(6, 3), (8, 3), (9, 8), (16, 12)])
def test_channels_without_names_are_averaged(tmp_path, channels, speaks):
    """All channels count. None is taken for a low-frequency channel and left out."""
    samples = np.zeros((2 * RATE, channels), np.float32)
    samples[:, [speaks]] = speech = voice()
    sound = read_sound(write_wav(tmp_path / "s.wav", samples, RATE))
    assert sound.channels == 1
    heard = for_aac(sound).waveform[:, :]
    for found in (sound.mono(), heard[0]):
        assert np.abs(found.numpy() - speech[:, 0] / channels).max() < 1e-4


@pytest.mark.parametrize("speaks", range(6))
def test_every_channel_of_a_surround_sound_is_heard_and_animated(tmp_path, speaks):
    samples = np.zeros((2 * RATE, 6), np.float32)
    samples[:, [speaks]] = speech = voice()
    sound = read_sound(write_wav(tmp_path / "s.wav", samples, RATE, MASK_5_1))
    assert sound.channels == 2
    left, right = sound.waveform[:, :].abs().amax(1) > 0.1
    sides = {0: (True, False), 1: (False, True), 4: (True, False), 5: (False, True)}
    assert (left.item(), right.item()) == sides.get(speaks, (True, True))
    assert correlation(sound.mono(), speech) > 0.999


def test_a_loud_surround_sound_does_not_clip(tmp_path):
    samples = np.repeat(voice() / 0.6 * 0.63, 6, axis=1)
    sound = for_aac(read_sound(write_wav(tmp_path / "s.wav", samples, RATE, MASK_5_1)))
    assert sound.peak == pytest.approx(0.63, abs=0.001)


def test_samples_above_full_scale_are_scaled_and_not_clipped(tmp_path):
    speech = voice() * 5
    sound = for_aac(read_sound(write(tmp_path / "s.wav", speech, "pcm_f32le")))
    assert sound.peak == 1
    assert correlation(sound.waveform[:, :][0], speech) > 0.9999


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8"])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_every_kind_of_sample_is_read(tmp_path, codec, channels):
    samples = np.repeat(voice(0.2), channels, 1)
    sound = read_sound(write(tmp_path / "s.wav", samples, codec, 11_025))
    assert (sound.rate, sound.samples) == (11_025, len(samples))
    assert np.abs(sound.mono().numpy() - samples[:, 0]).max() < 0.01


def test_silent_speech_is_told(caplog):
    Sound(torch.from_numpy(voice().T) * 0.01, RATE).prepared()
    assert caplog.text == ""
    quiet = torch.full((16_000,), 0.3) + 2e-5 * torch.randn(16_000).clamp(-2, 2)
    Sound(quiet[None], 16_000).prepared()
    assert silence_warning(quiet) in caplog.text


@pytest.mark.parametrize(
    ("name", "codec"),
    [("s.mka", "pcm_s16le"), ("s.mka", "aac"), ("s.mp4", "aac"), ("s.ts", "aac"), ("s.mov", "aac")],
)
def test_a_gap_is_silent(tmp_path, name, codec):
    speech = voice()
    sound = read_sound(write(tmp_path / name, speech, codec, gap=(1.0, 1.0)))
    assert sound.seconds == pytest.approx(3.0, abs=0.05)
    assert sound.cut(1.1, 1.9).abs().max() == 0
    delay = 1024 / RATE if name == "s.ts" else 0
    after = sound.cut(2.1 + delay, 3 + delay)[0]
    assert abs(lag(after, speech[round(1.1 * RATE) :])) < 0.03 * RATE


@pytest.mark.parametrize(("name", "codec"), [("s.mka", "pcm_s16le"), ("s.mp4", "aac")])
def test_a_late_beginning_is_silent(tmp_path, name, codec):
    sound = read_sound(write(tmp_path / name, speech := voice(), codec, start=0.7))
    assert sound.seconds == pytest.approx(2.7, abs=0.03)
    assert sound.cut(0, 0.65).abs().max() == 0
    assert lag(sound.mono(), speech) == pytest.approx(0.7 * RATE, abs=100)


def test_a_clock_that_began_long_ago_adds_nothing(tmp_path):
    sound = read_sound(write(tmp_path / "s.mka", voice(), "pcm_s16le", start=3600))
    assert sound.samples == 2 * RATE


@pytest.mark.parametrize(
    ("name", "codec", "longer"),
    [
        ("s.m4a", "aac", 0),
        ("s.mp3", "libmp3lame", 0),
        ("s.mp4", "libmp3lame", 0),
        ("s.flac", "flac", 0),
        ("s.wma", "wmav2", 1912),
        ("s.wma", "wmav1", 1912),
        ("s.mka", "wmav2", 1912),
    ],
)
def test_sound_begins_where_it_was_recorded(tmp_path, name, codec, longer):
    """The silence that encoders add at the beginning is removed. The rest is kept."""
    sound = read_sound(write(tmp_path / name, speech := voice(), codec))
    assert sound.samples == 2 * RATE + longer
    assert lag(sound.mono(), speech) == 0
    assert correlation(sound.mono()[:2048], speech) > 0.95


def test_cuts_follow_one_another():
    sound = Sound(torch.arange(1.0, 44_101)[None], RATE)
    times = [-0.5, -0.013, 0, 0.0333, 0.5, 0.99999, 1.5]
    parts = [sound.cut(*span) for span in pairwise(times)]
    whole = torch.cat(parts, 1)[0]
    assert len(whole) == 2 * RATE
    assert torch.equal(whole[RATE // 2 :][:RATE], sound.waveform[0])
    assert whole.count_nonzero() == RATE
    assert sound.cut(2, 3).abs().sum() == sound.cut(-2, -1).abs().sum() == 0
    assert sound.cut(2, 3).shape == (1, RATE)


def test_a_sound_on_the_disk_is_the_same():
    waveform = torch.randn(2, 10_000)
    filed = SampleFile(waveform.split(333, dim=1))
    assert filed.shape == waveform.shape
    for part in (slice(None), slice(300, 700), slice(9_999, 20_000), slice(20_000, 30_000)):
        assert torch.equal(filed[:, part], waveform[:, part])
    assert torch.equal(Sound(filed, RATE).prepared(), Sound(waveform, RATE).prepared())
