"""What is animated and what is heard come from one reading of the sound, whatever it is."""

import errno
import os
import struct
import subprocess
import sys
import threading
import wave
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torchaudio

from hallo3_core.errors import InputError
from hallo3_core.sound import resample as resample_module
from hallo3_core.sound.resample import resample
from hallo3_core.sound.sound import SampleFile, Sound, for_aac, silence_warning
from hallo3_core.sound.sound_file import read_sound
from hallo3_core.speech.vocals import FILTER

RATE = 44_100
MASK_5_1 = 0x3F
GUID = b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"


def voice(seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """(samples, 1): low noise within 0.6."""
    samples = np.random.default_rng(seed).standard_normal(int(seconds * rate))
    smooth = np.convolve(samples, np.ones(20) / 20, "same")
    return (0.6 * smooth / np.abs(smooth).max())[:, None].astype(np.float32)


def write(
    path: Path,
    samples: np.ndarray,
    codec: str,
    rate: int = RATE,
    *,
    start: float = 0,
    gap: tuple[float, float] = (0, 0),
) -> Path:
    """(samples, channels) as a file that begins at `start` s; a `gap` begins and lasts so long."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[samples.shape[1]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 128_000
        for first in range(0, len(samples), 1024):
            packed = np.ascontiguousarray(samples[first : first + 1024]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.rate = rate
            late = start + (gap[1] if gap[1] and first >= gap[0] * rate else 0)
            frame.pts = first + round(late * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000, mask: int | None = None) -> Path:
    """(samples, channels) as PCM of 16 bits, whose channels have names if there is a mask."""
    channels, data = samples.shape[1], (samples * 32_767).round().astype("<i2").tobytes()
    kind = 1 if mask is None else 0xFFFE
    form = struct.pack("<HHIIHH", kind, channels, rate, 2 * channels * rate, 2 * channels, 16)
    if mask is not None:
        form += struct.pack("<HHI", 22, 16, mask) + GUID
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def lag(found: torch.Tensor, expected: np.ndarray) -> int:
    """Samples by which (samples,) comes later than (samples, 1)."""
    size = 2 ** (len(found) + len(expected)).bit_length()
    spectra = np.conj(np.fft.rfft(expected[:, 0], size)) * np.fft.rfft(found.numpy(), size)
    shift = int(np.fft.irfft(spectra).argmax())
    return shift if shift < size // 2 else shift - size


def correlation(found: torch.Tensor, expected: np.ndarray) -> float:
    return np.corrcoef(found.numpy(), expected[: len(found), 0])[0, 1]


# Channels


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
    """Whichever speaks: none is taken for one of low frequencies, and left out."""
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


# Files


@pytest.mark.parametrize("name", ["2024-01-01T12:30.wav", "http:x.wav", "50%.wav", "é.wav"])
def test_any_name_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_wav(Path(name), voice())
    assert read_sound(Path(name)).samples == 2 * RATE


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
@pytest.mark.parametrize("name", ["s.wav", "s.mp4"])
def test_a_named_pipe_is_read_once(tmp_path, name):
    file = write(tmp_path / name, voice(), "aac" if name == "s.mp4" else "pcm_s16le")
    os.mkfifo(tmp_path / "pipe")
    content = file.read_bytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    assert read_sound(tmp_path / "pipe").samples == 2 * RATE
    writer.join()


@pytest.mark.skipif(sys.platform == "win32", reason="no /dev/stdin")
@pytest.mark.parametrize("piped", [True, False])
def test_standard_input_is_a_file(tmp_path, piped):
    file = write(tmp_path / "s.m4a", voice(), "aac")
    program = "from pathlib import Path; from hallo3_core.sound.sound_file import read_sound; "
    program += "print(read_sound(Path('/dev/stdin')).samples)"
    with file.open("rb") as opened:
        given = {"input": file.read_bytes()} if piped else {"stdin": opened}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
            **given,
        )
    assert done.stdout.split() == [b"%d" % (2 * RATE)]


def test_what_happens_to_the_file_later_does_not_matter(tmp_path):
    sound = read_sound(write_wav(tmp_path / "s.wav", speech := voice(), RATE))
    write_wav(tmp_path / "s.wav", 0 * speech, RATE)
    assert correlation(sound.mono(), speech) > 0.999
    (tmp_path / "s.wav").unlink()
    assert correlation(for_aac(sound).cut(0, 2)[0], speech) > 0.999


def two_tracks(path: Path, tracks: list[np.ndarray], default: int | None) -> Path:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in tracks]
        for number, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if number == default else 0
        for stream, samples in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "flt", "mono")
            frame.rate = RATE
            container.mux([*stream.encode(frame), *stream.encode()])
    return path


@pytest.mark.parametrize(
    ("spoken", "default", "taken"),
    [([1, 1], 1, 1), ([1, 1], 0, 0), ([0, 1], None, 1), ([0, 1], 0, 1), ([1, 0], 1, 0)],
)
def test_the_default_track_is_taken_unless_it_is_silent(tmp_path, spoken, default, taken):
    tracks = [voice(seed=seed) * loud for seed, loud in enumerate(spoken)]
    sound = read_sound(two_tracks(tmp_path / "v.mkv", tracks, default))
    assert correlation(sound.mono(), tracks[taken]) > 0.99


def test_joined_mp3s_are_read_to_the_end(tmp_path, caplog):
    """As speech services give them, each with its tag at the beginning."""
    speech = voice()
    part = write(tmp_path / "a.mp3", speech, "libmp3lame").read_bytes()
    assert part[:3] == b"ID3"
    (tmp_path / "two.mp3").write_bytes(part + part)
    sound = read_sound(tmp_path / "two.mp3")
    assert sound.seconds == pytest.approx(4.05, abs=0.1)
    assert abs(lag(sound.cut(2, 4)[0], speech)) < 0.1 * RATE
    assert caplog.text == ""


def test_sound_that_changes_its_format_goes_on(tmp_path):
    parts = []
    for rate, channels in ((48_000, 2), (16_000, 1)):
        samples = np.repeat(voice(1, rate), channels, 1)
        parts.append(write(tmp_path / f"{rate}.mp3", samples, "libmp3lame", rate))
    (joined := tmp_path / "two.mp3").write_bytes(b"".join(part.read_bytes() for part in parts))
    sound = read_sound(joined)
    assert sound.channels == 2
    assert sound.seconds == pytest.approx(2.0, abs=0.15)
    assert sound.cut(1.2, 1.8).std() > 0.05


@pytest.mark.parametrize(("name", "codec"), [("s.flac", "flac"), ("s.aac", "aac")])
def test_what_is_cut_off_is_read_as_far_as_it_goes(tmp_path, caplog, name, codec):
    whole = write(tmp_path / name, speech := voice(), codec).read_bytes()
    (cut := tmp_path / f"cut_{name}").write_bytes(whole[: len(whole) // 2])
    sound = read_sound(cut)
    assert 0.7 < sound.seconds < 1.3
    assert abs(lag(sound.mono(), speech)) <= 1024
    assert caplog.text.count(f"is damaged or cut off: {sound.seconds:.2f} s of sound") == 1


# Time


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
    """Without the silence that encoders put before it, and with all that comes after that."""
    sound = read_sound(write(tmp_path / name, speech := voice(), codec))
    assert sound.samples == 2 * RATE + longer
    assert lag(sound.mono(), speech) == 0
    assert correlation(sound.mono()[:2048], speech) > 0.95


# Errors


def test_a_video_without_sound(tmp_path):
    with av.open(str(path := tmp_path / "silent.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        container.mux([*stream.encode(picture), *stream.encode()])
    with pytest.raises(InputError, match="has no sound track"):
        read_sound(path)


@pytest.mark.parametrize(("bad", "count"), [(np.nan, 2), (np.inf, 1)])
def test_samples_that_are_no_numbers(tmp_path, bad, count):
    samples = np.zeros((100, 1), np.float32)
    samples[3 : 3 + count] = bad
    path = write(tmp_path / "sound.wav", samples, "pcm_f32le", 16_000)
    with pytest.raises(InputError, match=f"has {count} samples that are no numbers"):
        read_sound(path)


def test_sound_files_without_sound(tmp_path):
    with wave.open(str(empty := tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    with pytest.raises(InputError, match="has no length"):
        read_sound(empty)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputError, match="is no sound or video file"):
        read_sound(tmp_path / "text.wav")
    with pytest.raises(InputError, match="There is no sound file"):
        read_sound(tmp_path / "nowhere.wav")
    with pytest.raises(InputError, match="is no sound or video file"):
        read_sound(tmp_path)


def test_a_rate_that_no_sound_has(tmp_path):
    path = write_wav(tmp_path / "s.wav", voice(0.01), 3)
    with pytest.raises(InputError, match="The sound has 3 samples a second"):
        read_sound(path)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    path = write_wav(tmp_path / "s.wav", voice())
    monkeypatch.setattr("hallo3_core.sound.sound.TemporaryFile", Full)
    with pytest.raises(InputError, match=r"no room in .* \(No space left on device\)"):
        read_sound(path)


# Parts of a sound


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


# Other rates


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
    """torchaudio would make a filter of up to 8.8 GB."""
    monkeypatch.setattr(torchaudio.functional, "resample", None)
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(rate // 4) / rate)
    found = resample(tone[None], rate, target)[0]
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(len(found)) / target)
    assert len(found) == -(-(rate // 4) * target // rate)
    assert (found - expected)[500:-500].abs().max() < 1e-3
