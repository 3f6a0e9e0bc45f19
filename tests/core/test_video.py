import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hallo3_core.errors import InputError
from hallo3_core.media.encoding import Encoding
from hallo3_core.media.video import VideoWriter
from hallo3_core.sound.sound import Sound
from hallo3_core.sound.sound_file import read_sound
from sound_files import write

try:
    import resource
except ModuleNotFoundError:
    resource = None

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 4.03
FRAMES = 101
CUES = (1.0, 2.0, 3.0)


def beeps(rate: int, channels: int) -> np.ndarray:
    """Four seconds of silence with a short tone at each cue."""
    samples = np.zeros((int(rate * SECONDS), channels), np.float32)
    tone = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 50) / rate)
    for cue in CUES:
        samples[int(cue * rate) :][: len(tone)] = tone[:, None]
    return samples


def flashes() -> torch.Tensor:
    """Dark frames, with a white frame at each cue."""
    frames = torch.zeros(FRAMES, 64, 96, 3)
    for cue in CUES:
        frames[int(cue * 25)] = 1
    return frames


def read_back(path: Path) -> tuple[list[float], np.ndarray, int]:
    """Read a video: the times of its bright frames, its sound, and its number of frames."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        bright = [float(f.pts * f.time_base) for f in frames if f.to_ndarray().mean() > 128]
    sound = read_sound(path)
    loud = (sound.waveform[:, :][0].abs() > 0.1).nonzero()[:, 0].numpy() / sound.rate
    starts = loud[np.diff(loud, prepend=-1) > 0.5]
    return bright, starts, len(frames)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_picture_and_sound_stay_together(tmp_path, rate, channels):
    sound = write(tmp_path / "sound.wav", beeps(rate, channels), "pcm_s16le", rate)
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 64, 96, read_sound(sound)) as video:
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


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (192_000, 2)])
def test_pieces_make_the_video_that_their_frames_make(tmp_path, rate, channels):
    """The frames are exactly the same, and there is no seam."""
    sound = Sound(torch.from_numpy(beeps(rate, channels).T).float(), rate)
    parts = flashes().split(47)
    with VideoWriter(tmp_path / "fresh.mp4", 64, 96, sound) as fresh:
        for frames in parts:
            fresh.write(frames)
    pieces = [Encoding().encode(frames) for frames in parts]
    with VideoWriter(tmp_path / "kept.mp4", 64, 96, sound) as kept:
        for piece in pieces:
            kept.append(piece)
    assert kept.saved.read_bytes() == fresh.saved.read_bytes()
    bright, starts, frames = read_back(kept.saved)
    assert frames == FRAMES
    assert bright == pytest.approx(CUES)
    assert starts == pytest.approx(CUES, abs=0.005)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["fresh.mp4", "kept.mp4"]


def silent(seconds: float = SECONDS) -> Sound:
    return Sound(torch.zeros(1, round(16_000 * seconds)), 16_000)


def test_an_interrupted_video_keeps_what_is_done(tmp_path):
    """It is an ordinary video with another name each time. A finished video is not changed."""
    (tmp_path / "video.mp4").write_bytes(b"of last night")
    sound = Sound(torch.from_numpy(beeps(16_000, 1).T).float(), 16_000)
    for name in ("video.unfinished.mp4", "video.unfinished_2.mp4"):
        with (
            pytest.raises(KeyboardInterrupt),
            VideoWriter(tmp_path / "video.mp4", 64, 96, sound, overwrite=True) as video,
        ):
            video.write(flashes()[:60])
            raise KeyboardInterrupt
        assert video.saved == tmp_path / name
        bright, starts, frames = read_back(video.saved)
        assert (frames, video.seconds) == (60, 60 / 25)
        assert bright == pytest.approx([1.0, 2.0])
        assert starts == pytest.approx([1.0, 2.0], abs=0.005)
        assert video.saved.read_bytes().find(b"moof") == -1
    assert (tmp_path / "video.mp4").read_bytes() == b"of last night"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_killed_program_leaves_a_file_that_plays(tmp_path):
    """It plays up to the frame before the last one written. The next job does not change it."""
    code = """
import os, sys, torch
from pathlib import Path
from hallo3_core.sound.sound import Sound
from hallo3_core.media.video import VideoWriter
with VideoWriter(Path(sys.argv[1]), 64, 96, Sound(torch.rand(1, 64_480), 16_000)) as video:
    video.write(torch.rand(47, 64, 96, 3))
    video.write(torch.rand(47, 64, 96, 3))
    os.kill(os.getpid(), 9)
"""
    path, left = tmp_path / "video.mp4", tmp_path / "video.unfinished.mp4"
    killed = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT)
    assert killed.returncode != 0
    assert [file.name for file in tmp_path.iterdir()] == [left.name]
    _, starts, frames = read_back(left)
    assert frames == 93
    assert len(starts) == 1
    before = left.read_bytes()
    with VideoWriter(path, 64, 96, silent()) as video:
        video.write(flashes())
    assert video.saved == path
    assert left.read_bytes() == before


def test_two_jobs_with_one_name(tmp_path):
    """The second job stops at once, and the video of the first is complete."""
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 64, 96, silent()) as first:
        first.write(flashes()[:47])
        with (
            pytest.raises(InputError, match=r"Another job is writing .*video\.mp4"),
            VideoWriter(path, 64, 96, silent()),
        ):
            pass
        first.write(flashes()[47:])
    assert read_back(path)[2] == FRAMES
    assert [file.name for file in tmp_path.iterdir()] == ["video.mp4"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_turns_up_during_the_job(tmp_path, overwrite):
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 64, 96, silent(), overwrite) as video:
        video.write(flashes())
        path.write_bytes(b"of somebody else")
    assert video.saved == (path if overwrite else tmp_path / "video_2.mp4")
    assert read_back(video.saved)[2] == FRAMES
    assert (path.read_bytes() == b"of somebody else") is not overwrite


@pytest.mark.parametrize("interrupted", [False, True])
def test_ctrl_c_works_again_after_the_video(tmp_path, interrupted):
    """It does nothing while the file is being finished. Afterwards it works as before."""
    presses = []

    def pressed(*_):
        presses.append(1)

    before = signal.signal(signal.SIGINT, pressed)
    try:
        with (
            suppress(ZeroDivisionError),
            VideoWriter(tmp_path / "video.mp4", 64, 96, silent()) as video,
        ):
            video.write(flashes())
            video.claim.callback(signal.raise_signal, signal.SIGINT)
            if interrupted:
                raise ZeroDivisionError
        assert presses == []
        signal.raise_signal(signal.SIGINT)
        assert presses == [1]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_video_made_in_another_thread(tmp_path):
    """Signal handlers cannot be set there. ComfyUI works in such a thread."""

    def make():
        with VideoWriter(tmp_path / "video.mp4", 64, 96, silent()) as video:
            video.write(flashes())

    with ThreadPoolExecutor(1) as threads:
        threads.submit(make).result()
    assert read_back(tmp_path / "video.mp4")[2] == FRAMES


def test_nothing_is_left_when_nothing_was_written(tmp_path):
    sound = write(tmp_path / "sound.wav", beeps(16_000, 1), "pcm_s16le", 16_000)
    with (
        pytest.raises(ZeroDivisionError),
        VideoWriter(tmp_path / "v.mp4", 64, 96, read_sound(sound)),
    ):
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.iterdir()] == ["sound.wav"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing/v.mp4", "There is no folder"), ("v.avi", "does not end in .mp4")],
)
def test_outputs_that_cannot_be_written(tmp_path, name, says):
    sound = write(tmp_path / "sound.wav", beeps(16_000, 1), "pcm_s16le", 16_000)
    with pytest.raises(InputError, match=says):
        VideoWriter(tmp_path / name, 64, 96, read_sound(sound))
    assert [file.name for file in tmp_path.iterdir()] == ["sound.wav"]


def test_the_sound_of_a_video_is_read(tmp_path):
    sound = write(tmp_path / "sound.wav", beeps(48_000, 2), "pcm_s16le", 48_000)
    with VideoWriter(tmp_path / "video.mp4", 64, 96, read_sound(sound)) as video:
        video.write(flashes())
    heard = read_sound(tmp_path / "video.mp4")
    assert heard.rate == 48_000
    assert heard.seconds == pytest.approx(SECONDS, abs=0.02)


def test_very_loud_samples_are_clipped(tmp_path):
    sound = write(tmp_path / "sound.wav", beeps(16_000, 1) * 1e9, "pcm_f32le", 16_000)
    with VideoWriter(tmp_path / "video.mp4", 64, 96, read_sound(sound)) as video:
        video.write(flashes())
    assert read_sound(tmp_path / "video.mp4").waveform[:, :].abs().max() < 1.5


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system refuses to write more, as it does if a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.skipif(not resource, reason="the limit is of Unix")
def test_a_disk_that_is_full_on_the_way(tmp_path):
    """One sentence says so, and the video of the earlier segments plays."""
    path = tmp_path / "video.mp4"
    with (
        pytest.raises(InputError, match=r"could not be finished .* is in .*unfinished\.mp4"),
        VideoWriter(path, 64, 96, silent()) as video,
    ):
        video.write(torch.rand(47, 64, 96, 3))
        with no_file_larger_than(video.partial.stat().st_size + 50_000):
            video.write(torch.rand(47, 64, 96, 3))
    assert video.saved == tmp_path / "video.unfinished.mp4"
    assert (video.frames, read_back(video.saved)[2]) == (47, 46)
    assert [file.name for file in tmp_path.iterdir()] == ["video.unfinished.mp4"]


@pytest.mark.skipif(not resource, reason="the limit is of Unix")
def test_a_disk_that_is_full_from_the_start(tmp_path):
    with (
        pytest.raises(InputError, match=r"Nothing can be written to .*File too large"),
        VideoWriter(tmp_path / "video.mp4", 64, 96, silent()) as video,
        no_file_larger_than(10_000),
    ):
        video.write(torch.rand(47, 64, 96, 3))
    assert (video.saved, video.frames) == (None, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_end(tmp_path, monkeypatch):
    """One sentence says where the finished part is, and it plays."""

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hallo3_core.media.video.remux", no_room)
    with (
        pytest.raises(InputError, match=r"No space left on device.*is in .*unfinished\.mp4"),
        VideoWriter(tmp_path / "video.mp4", 64, 96, silent()) as video,
    ):
        video.write(flashes())
    assert [file.name for file in tmp_path.iterdir()] == ["video.unfinished.mp4"]
    assert read_back(video.saved)[2] == FRAMES
