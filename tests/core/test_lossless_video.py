"""Videos whose frames are changed in one place, without a loss elsewhere."""

import struct
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from hallo3_core.errors import InputError
from hallo3_core.media.frames import LosslessWriter, VideoFile, picture_of, with_changes
from photograph import astronaut
from video_files import write_film

WIDTH, HEIGHT, FRAMES = 160, 96, 12
WINDOW = slice(20, 61), slice(33, 90)
UPRIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
TURNED = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
"""The matrix of an MP4 that says how the video is shown."""


def made(path: Path, encoder="libx264", pixels="yuv420p", **options) -> VideoFile:
    """A video of a moving photograph with a second of sound, 30000 / 1001 frames a second."""
    photograph = (astronaut() * 255).byte().permute(1, 2, 0).numpy()
    parts = [photograph[i : i + HEIGHT, 100 + i : 100 + i + WIDTH] for i in range(FRAMES)]
    rate = Fraction(30_000, 1001)
    return VideoFile(str(write_film(path, np.stack(parts), rate, encoder, pixels, **options)))


def inverted(video: VideoFile, path: Path, window=WINDOW) -> VideoFile:
    """The video with inverted pixels in the window."""
    with LosslessWriter(path, video) as writer:
        for frame in video.frames():
            before = picture_of(frame)
            after = before.clone()
            after[window] = 1 - after[window]
            writer.write(with_changes(frame, before, after, window))
    return VideoFile(str(path))


def differences(one: VideoFile, other: VideoFile, window=WINDOW, format="rgb24") -> float:
    """The share of pixels in the window that differ. Outside, all must be the same to the bit."""
    shares = []
    for old, new in zip(one.frames(), other.frames(), strict=True):
        assert new.time == pytest.approx(old.time - one.start, abs=1e-3)
        differs = (old.to_ndarray(format=format) != new.to_ndarray(format=format)).any(-1)
        shares.append(differs[window].mean())
        differs[window] = False
        assert not differs.any()
    return float(np.mean(shares))


def packets(video: VideoFile, kind: str = "audio") -> list[tuple]:
    with video.open() as container:
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(**{kind: 0})
            if packet.pts is not None
        ]


def samples(plane) -> np.ndarray:
    """The samples of a plane of 8 bits, (height, width)."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width]


FORMATS = [
    ("libx264", "yuv420p", {}),
    ("libx264", "yuv420p", {"colorspace": "1", "color_range": "1"}),
    ("libx264", "yuvj420p", {"color_range": "2"}),
    ("libx264", "yuv422p", {}),
    ("libx264", "yuv420p10le", {}),
    ("libx264rgb", "bgr24", {}),
    ("png", "rgb24", {}),
    ("ffv1", "yuv444p12le", {}),
]


@pytest.mark.parametrize(("encoder", "pixels", "options"), FORMATS)
def test_only_the_window_changes(tmp_path, encoder, pixels, options):
    video = made(tmp_path / "a.mp4", encoder, pixels, **options)
    found = inverted(video, tmp_path / "b.mp4")
    assert differences(video, found) > 0.9
    middle = slice(24, 57), slice(37, 86)
    for old, new in zip(video.pictures(), found.pictures(), strict=True):
        assert (new - (1 - old))[middle].abs().mean() < 0.03
    assert packets(found) == packets(video)


def test_the_planes_stay_to_the_bit(tmp_path):
    """Whatever converts them to RGB, the pixels outside are the same."""
    video = made(tmp_path / "a.mp4")
    found = inverted(video, tmp_path / "b.mp4")
    assert differences(video, found, format="gbrpf32le") > 0.9
    for old, new in zip(video.frames(), found.frames(), strict=True):
        for before, after in zip(old.planes, new.planes, strict=True):
            step = HEIGHT // before.height
            lines = [samples(plane) for plane in (before, after)]
            above = slice(0, WINDOW[0].start // step)
            assert np.array_equal(lines[0][above], lines[1][above])
            assert not np.array_equal(*lines)


def test_what_does_not_change_stays_to_the_bit(tmp_path):
    """The conversion to RGB and back loses nothing, also inside the window."""
    for frame in made(tmp_path / "a.mp4").frames():
        picture = picture_of(frame)
        same = with_changes(frame, picture, picture, WINDOW)
        for before, after in zip(frame.planes, same.planes, strict=True):
            assert np.array_equal(samples(before), samples(after))


def test_each_frame_keeps_its_time(tmp_path):
    """Phones film with a variable frame rate."""
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.08, FRAMES)).tolist()
    video = made(tmp_path / "a.mp4", times=times)
    found = inverted(video, tmp_path / "b.mp4")
    assert [frame.time for frame in found.frames()] == [frame.time for frame in video.frames()]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_part_of_a_video_begins_at_0(tmp_path, in_memory):
    whole = made(tmp_path / "a.mp4")
    source = BytesIO(Path(whole.source).read_bytes()) if in_memory else whole.source
    part = VideoFile(source, start=0.1, duration=0.2)
    assert part.count() == 6
    found = inverted(part, tmp_path / "b.mp4")
    assert differences(part, found) > 0.9
    sound, all_of_it = packets(found), packets(whole)
    kept = [(time - 0.1, data) for time, data in all_of_it if 0.1 <= time < 0.3]
    assert [data for _, data in sound] == [data for _, data in kept]
    assert np.allclose([time for time, _ in sound], [time for time, _ in kept], atol=1e-3)


def test_a_video_of_a_phone_is_upright(tmp_path):
    """Its MP4 says that it is turned."""
    lying = made(tmp_path / "a.mp4")
    content = Path(lying.source).read_bytes()
    place = content.index(UPRIGHT, content.index(b"tkhd"))
    (tmp_path / "b.mp4").write_bytes(content[:place] + TURNED + content[place + len(TURNED) :])
    video = VideoFile(str(tmp_path / "b.mp4"))
    first, turned = next(lying.pictures()), next(video.pictures())
    assert turned.shape == (WIDTH, HEIGHT, 3)
    with video.open() as container:
        rotation = next(container.decode(video=0)).rotation
    assert abs(rotation) == 90
    assert (turned - torch.rot90(first, rotation // 90)).abs().mean() < 0.01
    window = slice(33, 90), slice(20, 61)
    assert differences(video, inverted(video, tmp_path / "c.mp4", window), window) > 0.9


def test_nothing_is_left_after_an_error(tmp_path):
    video = made(tmp_path / "a.mp4")
    with pytest.raises(InterruptedError), LosslessWriter(tmp_path / "b.mp4", video) as writer:
        writer.write(next(video.frames()))
        raise InterruptedError
    assert not (tmp_path / "b.mp4").exists()


def test_a_file_that_is_no_video(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"no video" * 100)
    with pytest.raises(InputError, match=r"a\.mp4 cannot be read as a video \(.*\): save it as"):
        VideoFile(str(file)).count()
    with pytest.raises(InputError, match=r"^The video cannot be read as a video"):
        VideoFile(BytesIO(b"no video" * 100)).count()
