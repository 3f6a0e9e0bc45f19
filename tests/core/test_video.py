import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hallo3_core.errors import InputError
from hallo3_core.video import (
    VideoWriter,
    join,
    read_speech,
    sound_of_file,
    sound_of_waveform,
    write_pictures,
)

SECONDS = 4.03
FRAMES = 101
CUES = (1.0, 2.0, 3.0)


def write_wav(path: Path, samples: np.ndarray, rate: int, codec: str = "pcm_s16le") -> Path:
    """(samples, channels) float as a sound file."""
    layout = {1: "mono", 2: "stereo", 8: "7.1"}[samples.shape[1]]
    packed = np.ascontiguousarray(samples, np.float32).reshape(1, -1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if packed.size:
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            frame.rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def beeps(rate: int, channels: int) -> np.ndarray:
    """Four seconds of silence with a short tone at each cue."""
    samples = np.zeros((int(rate * SECONDS), channels))
    tone = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 50) / rate)
    for cue in CUES:
        samples[int(cue * rate) :][: len(tone)] = tone[:, None]
    return samples


def flashes() -> torch.Tensor:
    """Dark frames, white at each cue."""
    frames = torch.zeros(FRAMES, 64, 96, 3)
    for cue in CUES:
        frames[int(cue * 25)] = 1
    return frames


def read_back(path: Path) -> tuple[list[float], np.ndarray, int]:
    """Times of the bright frames and the sound of a video, and how many frames it has."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        bright = [float(f.pts * f.time_base) for f in frames if f.to_ndarray().mean() > 128]
    sound, rate = read_speech(path)
    loud = (sound[0].abs() > 0.1).nonzero()[:, 0].numpy() / rate
    starts = loud[np.diff(loud, prepend=-1) > 0.5]
    return bright, starts, len(frames)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_picture_and_sound_stay_together(tmp_path, rate, channels):
    sound = write_wav(tmp_path / "sound.wav", beeps(rate, channels), rate)
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 64, 96, sound_of_file(sound)) as video:
        for part in flashes().split(47):
            video.write(part)
    bright, starts, frames = read_back(path)
    assert frames == FRAMES
    assert bright == pytest.approx(CUES)
    assert starts == pytest.approx(CUES, abs=0.005)
    with av.open(str(path)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, picture.pix_fmt) == ("h264", "yuv420p")
        assert (picture.width, picture.height) == (96, 64)
        assert picture.average_rate == Fraction(25)
        assert picture.frames == FRAMES
        assert float(picture.start_time * picture.time_base) == 0
        assert sound.codec_context.name == "aac"
        assert float(sound.duration * sound.time_base) == pytest.approx(SECONDS, abs=0.002)
    assert [file.name for file in tmp_path.glob("*.mp4")] == ["video.mp4"]


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (192_000, 8)])
def test_parts_are_joined_without_a_seam(tmp_path, rate, channels):
    parts = []
    for i, frames in enumerate(flashes().split(47)):
        parts.append(tmp_path / f"{i}.mp4")
        write_pictures(parts[-1], frames)
    waveform = torch.from_numpy(beeps(rate, channels).T)
    join(parts, path := tmp_path / "video.mp4", sound_of_waveform(waveform, rate))
    bright, starts, frames = read_back(path)
    assert frames == FRAMES
    assert bright == pytest.approx(CUES)
    assert starts == pytest.approx(CUES, abs=0.005)


def test_an_interrupted_video_keeps_what_is_done(tmp_path):
    sound = write_wav(tmp_path / "sound.wav", beeps(16_000, 1), 16_000)
    path = tmp_path / "video.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 64, 96, sound_of_file(sound)) as video:
        video.write(flashes()[:60])
        raise KeyboardInterrupt
    bright, starts, frames = read_back(path)
    assert frames == 60
    assert bright == pytest.approx([1.0, 2.0])
    assert starts == pytest.approx([1.0, 2.0], abs=0.005)
    assert video.seconds == 60 / 25


def test_a_killed_program_leaves_a_file_that_plays(tmp_path):
    sound = write_wav(tmp_path / "sound.wav", beeps(16_000, 1), 16_000)
    video = VideoWriter(tmp_path / "video.mp4", 64, 96, sound_of_file(sound))
    video.write(flashes())
    left = tmp_path / "left.mp4"
    left.write_bytes((tmp_path / "video.partial.mp4").read_bytes())
    video.__exit__()
    bright, starts, frames = read_back(left)
    assert frames >= FRAMES - 15
    assert bright == pytest.approx(CUES)
    assert starts == pytest.approx(CUES, abs=0.005)


def test_nothing_is_left_when_nothing_was_written(tmp_path):
    sound = write_wav(tmp_path / "sound.wav", beeps(16_000, 1), 16_000)
    with (
        pytest.raises(ZeroDivisionError),
        VideoWriter(tmp_path / "v.mp4", 64, 96, sound_of_file(sound)),
    ):
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.iterdir()] == ["sound.wav"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing/v.mp4", "There is no folder"), ("v.avi", "does not end in .mp4")],
)
def test_outputs_that_cannot_be_written(tmp_path, name, says):
    sound = write_wav(tmp_path / "sound.wav", beeps(16_000, 1), 16_000)
    with pytest.raises(InputError, match=says):
        VideoWriter(tmp_path / name, 64, 96, sound_of_file(sound))
    assert [file.name for file in tmp_path.iterdir()] == ["sound.wav"]


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8"])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_sound_is_mixed_to_mono(tmp_path, codec, channels):
    generator = np.random.default_rng(0)
    samples = generator.uniform(-0.9, 0.9, (5000, channels))
    speech, rate = read_speech(write_wav(tmp_path / "sound.wav", samples, 11_025, codec))
    assert rate == 11_025
    assert speech.shape == (1, 5000)
    assert np.abs(speech[0].numpy() - samples.mean(axis=1)).max() < 0.01


def test_the_sound_of_a_video_is_read(tmp_path):
    sound = write_wav(tmp_path / "sound.wav", beeps(48_000, 2), 48_000)
    with VideoWriter(tmp_path / "video.mp4", 64, 96, sound_of_file(sound)) as video:
        video.write(flashes())
    speech, rate = read_speech(tmp_path / "video.mp4")
    assert rate == 48_000
    assert speech.shape[1] / rate == pytest.approx(SECONDS, abs=0.02)


def test_a_video_without_sound(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        for _ in range(3):
            picture = np.zeros((64, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="has no sound track"):
        read_speech(path)


def test_very_loud_samples_are_clipped(tmp_path):
    sound = write_wav(tmp_path / "sound.wav", beeps(16_000, 1) * 1e9, 16_000, "pcm_f32le")
    with VideoWriter(tmp_path / "video.mp4", 64, 96, sound_of_file(sound)) as video:
        video.write(flashes())
    assert read_speech(tmp_path / "video.mp4")[0].abs().max() < 1.5


def test_sound_that_changes_its_format(tmp_path):
    parts = []
    for rate, channels in ((48_000, 2), (16_000, 1)):
        samples = np.zeros((rate, channels))
        parts.append(write_wav(tmp_path / f"{rate}.mp3", samples, rate, "libmp3lame"))
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(InputError, match="changes its format"):
        read_speech(joined)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    sound = write_wav(tmp_path / "sound.wav", beeps(16_000, 1), 16_000)

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hallo3_core.video._remux", no_room)
    with (
        pytest.raises(InputError, match=r"No space left on device.*is in .*partial\.mp4"),
        VideoWriter(tmp_path / "video.mp4", 64, 96, sound_of_file(sound)) as video,
    ):
        video.write(flashes())
    assert read_back(tmp_path / "video.partial.mp4")[2] == FRAMES


@pytest.mark.parametrize(("bad", "count"), [(np.nan, 2), (np.inf, 1)])
def test_samples_that_are_no_numbers(tmp_path, bad, count):
    samples = np.zeros((100, 1))
    samples[3 : 3 + count] = bad
    path = write_wav(tmp_path / "sound.wav", samples, 16_000, "pcm_f32le")
    with pytest.raises(InputError, match=f"has {count} samples that are no numbers"):
        read_speech(path)


def test_sound_files_without_sound(tmp_path):
    with wave.open(str(empty := tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    with pytest.raises(InputError, match="has no length"):
        read_speech(empty)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputError, match="is no sound or video file"):
        read_speech(tmp_path / "text.wav")
    with pytest.raises(InputError, match="There is no sound file"):
        read_speech(tmp_path / "nowhere.wav")
