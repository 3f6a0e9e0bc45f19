"""FID compared with pytorch-fid 0.3.0, with weights from a formula."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hallo3_core import cli as command_line
from hallo3_core.errors import InputError
from hallo3_core.evaluation.fid import frechet_distance, inception, load_inception, pictures
from hallo3_core.media.video import VideoWriter
from hallo3_core.sound.sound import Sound
from training.world.clips import clip

FEATURES = {824: 1.117429, 830: 1.030416, 1007: 1.048055, 1964: 0.955827}
"""Some features of pytorch-fid's network for the picture below, and the mean of all."""
MEAN = 0.1191289


@pytest.fixture
def file(tmp_path) -> Path:
    """A weights file with waves in every tensor."""
    weights = inception().state_dict()
    for index, (name, tensor) in enumerate(weights.items()):
        if not tensor.is_floating_point():
            continue
        wave = torch.sin(torch.arange(tensor.numel()) * (1 + 0.01 * (index % 7)) + index)
        wave = wave.view(tensor.shape)
        if tensor.ndim > 1:
            tensor.copy_(wave * (2.5 / tensor[0].numel()) ** 0.5)
        elif name.endswith(("running_var", "weight")):
            tensor.copy_(1 + 0.3 * wave)
        else:
            tensor.copy_(0.1 * wave)
    file = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(weights, file)
    return file


def picture() -> np.ndarray:
    y, x = np.mgrid[:128, :192]
    waves = 128 + 100 * np.sin(y / 9), 128 + 100 * np.cos(x / 7), y * x % 256
    return np.stack(waves, axis=-1).astype(np.uint8)


def test_features_of_a_picture(file):
    (found,) = load_inception(file)(pictures([picture()]))
    assert found.mean().item() == pytest.approx(MEAN, rel=1e-4)
    for channel, value in FEATURES.items():
        assert found[channel].item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(("count", "distance"), [(60, 26.176891), (20, 45.858198)])
def test_distance_of_two_sets(count, distance):
    """The sets have more pictures than channels, or fewer."""
    generator = np.random.default_rng(count)
    one = torch.from_numpy(generator.standard_normal((count, 32)))
    other = torch.from_numpy(generator.standard_normal((50, 32)) * 1.5 + 0.3)
    assert frechet_distance(one, other) == pytest.approx(distance, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_of_videos_on_the_command_line(tmp_path, monkeypatch, capsys):
    """The distance of a video from itself is 0, and from noise it is larger."""
    torch.manual_seed(0)
    network = inception()
    for weight in network.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight)
    torch.save(network.state_dict(), tmp_path / "network.pth")
    faces = torch.from_numpy(clip("test", 0, (64, 64), 9).frames) / 255
    for name, frames in (("clip", faces), ("noise", torch.rand(faces.shape))):
        sound = Sound(torch.zeros(1, 5760), 16_000)
        with VideoWriter(tmp_path / f"{name}.mp4", 64, 64, sound) as video:
            video.write(frames)
    monkeypatch.chdir(tmp_path)
    found = []
    for real in ("clip.mp4", "noise.mp4"):
        given = ["evaluate", "clip.mp4", "--fid", "network.pth", "--real", real]
        monkeypatch.setattr("sys.argv", ["hallo3_core", *given])
        assert command_line.main() == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.endswith("between 9 frames and 9 real frames")
        found.append(float(line.split()[1]))
    assert found[0] == pytest.approx(0, abs=0.01)
    assert found[1] > 1


def test_without_real_videos(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hallo3_core", "evaluate", "clip.mp4", "--fid", "network.pth"])
    assert command_line.main() == 2
    assert "--real" in capsys.readouterr().err


def test_another_file(tmp_path):
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"other\.pth is text, not weights"):
        load_inception(tmp_path / "other.pth")
