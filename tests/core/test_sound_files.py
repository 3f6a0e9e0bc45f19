"""Reading a sound from any file, and the errors for files that cannot be read."""

import errno
import os
import subprocess
import sys
import threading
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from hallo3_core.errors import InputError
from hallo3_core.sound.sound import for_aac
from hallo3_core.sound.sound_file import read_sound
from sound_files import RATE, correlation, lag, voice, write, write_wav


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
    """Speech services join MP3s, and each part has its tag at the beginning."""
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
    assert caplog.text.count(f"is damaged or cut off: only {sound.seconds:.2f} s of sound") == 1


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
    with pytest.raises(InputError, match=f"has {count} samples that are NaN or infinite"):
        read_sound(path)


def test_sound_files_without_sound(tmp_path):
    with wave.open(str(empty := tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    with pytest.raises(InputError, match="is empty"):
        read_sound(empty)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputError, match="cannot be read as a sound or video file"):
        read_sound(tmp_path / "text.wav")
    with pytest.raises(InputError, match="There is no sound file"):
        read_sound(tmp_path / "nowhere.wav")
    with pytest.raises(InputError, match="cannot be read as a sound or video file"):
        read_sound(tmp_path)


def test_a_rate_that_no_sound_has(tmp_path):
    path = write_wav(tmp_path / "s.wav", voice(0.01), 3)
    with pytest.raises(InputError, match="The sample rate of the sound is 3 Hz"):
        read_sound(path)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    path = write_wav(tmp_path / "s.wav", voice())
    monkeypatch.setattr("hallo3_core.sound.sound.TemporaryFile", Full)
    with pytest.raises(InputError, match=r"cannot be written to .* \(No space left on device\)"):
        read_sound(path)
