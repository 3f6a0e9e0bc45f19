"""Videos for editors: ProRes, and a PNG for each frame."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hallo3_core import cli
from hallo3_core.errors import InputError
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


@pytest.mark.parametrize("ending", ["mov", "png"])
def test_the_command_line_writes_it(tmp_path, monkeypatch, capsys, ending):
    """Only the asked files are left. A tenth of a second, in the middle of the speech."""
    options = ["--output", str(tmp_path / f"a.{ending}"), "--from", "0.4", "--to", "0.52"]
    more = ["--steps", "1", "--no-store", "--quiet"]
    monkeypatch.setattr("sys.argv", ["hallo3_core", "animate", *options, *more])
    assert cli.main() == 0
    printed = Path(capsys.readouterr().out.partition(": ")[0])
    names = sorted(file.name for file in tmp_path.iterdir())
    if ending == "mov":
        assert names == ["a.mov"]
    else:
        assert names == ["a.wav", "a_00000.png", "a_00001.png", "a_00002.png"]
        assert Image.open(printed).size == (128, 128)
    assert printed.name == f"a{'_00000' * (ending == 'png')}.{ending}"
