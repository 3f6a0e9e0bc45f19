"""Videos for editors: ProRes, and a PNG for each frame."""

from errno import ENOSPC
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hallo3_core import cli
from hallo3_core.cli.animate import writing
from hallo3_core.errors import InputError
from hallo3_core.media import export as exporting
from hallo3_core.media.export import check_export, export
from hallo3_core.sound.sound import Sound
from hallo3_core.sound.sound_file import read_sound

RATE = Fraction(25)
SOUND = Sound(torch.linspace(-0.9, 0.9, 2 * 48_000)[None].repeat(2, 1), 48_000)
"""Two seconds, stereo."""


def pictures(count: int = 30) -> list[np.ndarray]:
    """Soft colours that move, 64 x 48."""
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    return [
        np.stack([2 * x + i, 3 * y + i, x + y + 2 * i], axis=-1).astype(np.uint8)
        for i in range(count)
    ]


def test_prores(tmp_path):
    path = export(iter(pictures()), RATE, SOUND, tmp_path / "a.mov")
    with av.open(path) as video:
        stream, heard = video.streams.video[0], video.streams.audio[0]
        assert (stream.codec.canonical_name, stream.format.name) == ("prores", "yuv422p10le")
        assert heard.codec.canonical_name == "pcm_s16le"
        assert heard.duration * heard.time_base == pytest.approx(1.2)
        found = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    wrong = np.stack(found).astype(float) - np.stack(pictures())
    assert 10 * np.log10(255**2 / np.square(wrong).mean()) > 40
    assert torch.allclose(
        read_sound(path).waveform[:, :1000], SOUND.waveform[:, :1000], atol=1 / 16_000
    )


def test_a_picture_for_each_frame(tmp_path):
    assert export(iter(pictures(3)), RATE, SOUND, tmp_path / "a.png") == tmp_path / "a_00000.png"
    for number, picture in enumerate(pictures(3)):
        found = np.asarray(Image.open(tmp_path / f"a_{number:05}.png"))
        assert np.array_equal(found, picture)
    heard = read_sound(tmp_path / "a.wav")
    assert (heard.channels, heard.samples) == (2, 48_000 * 3 // 25)


def test_no_file_is_replaced(tmp_path):
    (tmp_path / "a_00000.png").touch()
    (tmp_path / "a.mov").touch()
    for name in ("a.png", "a.mov"):
        with pytest.raises(InputError, match="exists already"):
            check_export(tmp_path / name)
        check_export(tmp_path / name, overwrite=True)
    with pytest.raises(InputError, match=r"does not end in \.mp4, \.mov or \.png"):
        check_export(tmp_path / "a.avi")


def test_all_pictures_and_the_sound_count(tmp_path):
    """Not only the first picture: none is replaced unasked, and none if it is an input."""
    for name in ("a_00007.png", "b.wav"):
        file, video = tmp_path / name, tmp_path / f"{name[0]}.png"
        file.touch()
        with pytest.raises(InputError, match=f"{name} exists already"):
            check_export(video)
        with pytest.raises(InputError, match="exists already"):
            export(iter(pictures(2)), RATE, SOUND, video)
        with pytest.raises(InputError, match=f"{name} is the input"):
            check_export(video, [file], overwrite=True)
        check_export(video, overwrite=True)


def test_a_shorter_video_replaces_all_pictures(tmp_path):
    export(iter(pictures(3)), RATE, SOUND, tmp_path / "a.png")
    (tmp_path / "a_cover.png").touch()
    export(iter(pictures(2)), RATE, SOUND, tmp_path / "a.png", overwrite=True)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a.wav", "a_00000.png", "a_00001.png", "a_cover.png"]


def test_no_picture_is_left_after_an_error(tmp_path):
    def broken():
        yield from pictures(2)
        raise InputError("The video ends here.")

    with pytest.raises(InputError, match="The video ends here"):
        export(broken(), RATE, SOUND, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def animate(tmp_path, monkeypatch, capsys):
    """Run `animate` into a file of the folder. Returns the exit status and what was printed."""

    def animate(name: str, *words: str) -> tuple[int, str]:
        part = ["--from", "0.4", "--to", "0.52", "--steps", "1", "--no-store", "--quiet"]
        output = ["--output", str(tmp_path / name)]
        monkeypatch.setattr("sys.argv", ["hallo3_core", "animate", *output, *part, *words])
        status = cli.main()
        return status, "".join(capsys.readouterr())

    return animate


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (OSError(ENOSPC, "full"), 2, "error: There is no room left for {0}/a.mov: make room and"),
        (KeyboardInterrupt(), 130, "Stopped. {0}/a.lossless.mp4: 0.12 s, 3 frames."),
    ],
)
def test_the_last_step_stops(animate, tmp_path, monkeypatch, error, status, says):
    """The video without loss stays, the user is told where, and the next start is not refused."""

    def stop(*_):
        raise error

    with monkeypatch.context() as stopped:
        stopped.setattr(exporting, "write_prores", stop)
        found, printed = animate("a.mov")
    assert found == status
    assert printed.startswith(says.format(tmp_path))
    assert f"{tmp_path / 'a.lossless.mp4'}" in printed
    before = (tmp_path / "a.lossless.mp4").read_bytes()
    assert animate("a.mov", "--overwrite")[0] == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.lossless.mp4", "a.mov"]
    assert (tmp_path / "a.lossless.mp4").read_bytes() == before


def test_two_jobs_with_one_name(animate, tmp_path, monkeypatch):
    """The second one stops at once, while the first one computes."""
    busy = f"Another job is writing {tmp_path / 'a.mov'}"
    refused = []

    def meanwhile(*_, **__):
        with pytest.raises(InputError, match=busy):
            check_export(tmp_path / "a.mov")
        refused.append(busy)
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "make_segments", meanwhile)
    assert animate("a.mov")[0] == 130
    assert refused == [busy]


@pytest.mark.parametrize("ending", ["mov", "png"])
def test_the_command_line_writes_it(animate, tmp_path, ending):
    """Only the asked files are left. A tenth of a second, in the middle of the speech."""
    status, says = animate(f"a.{ending}")
    assert status == 0
    printed = Path(says.partition(": ")[0])
    names = sorted(file.name for file in tmp_path.iterdir())
    if ending == "mov":
        assert names == ["a.mov"]
    else:
        assert names == ["a.wav", "a_00000.png", "a_00001.png", "a_00002.png"]
        assert Image.open(printed).size == (128, 128)
    assert printed.name == f"a{'_00000' * (ending == 'png')}.{ending}"
