"""The same numbers on a device that is not the CPU, and every tensor where it belongs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import parity
from hallo3_core import __main__ as command_line
from hallo3_core.evaluation import evaluate, fid, report, syncnet
from hallo3_core.evaluation.reader import MeshReader, drawn_reader
from hallo3_core.evaluation.tracks import track
from hallo3_core.sound import Sound
from hallo3_core.video import VideoWriter
from pretended_card import CARD, PretendedCard
from training.world.clips import clip

CHECKS = (
    parity.check_forward,
    parity.check_sampler,
    parity.check_audio,
    parity.check_long_video,
)


@torch.no_grad()
def test_what_was_recorded():
    model = parity.load_model(parity.FIXTURES, torch.float32)
    with PretendedCard():
        model = model.placed(CARD)
        for check in CHECKS:
            for _, name, ours, recorded in check(parity.FIXTURES, model):
                assert parity.error(ours, recorded) < 1e-4, name
        with pytest.raises(RuntimeError, match="two devices"):
            model.audio_projector(torch.zeros(1, 49, 5, 12, 16))


def test_tracks_of_a_clip():
    frames = clip("test", 0, (64, 96), 12).frames
    expected = vars(track(drawn_reader(), frames))
    with PretendedCard():
        found = vars(track(drawn_reader(CARD), frames, device=CARD))
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-4, nan_ok=True), name


def test_a_mesh_sees_pictures_on_the_cpu():
    """MediaPipe knows nothing of cards."""
    points = np.random.default_rng(0).uniform(20, 80, (478, 2))

    def mesh(picture: torch.Tensor) -> np.ndarray:
        assert picture.device.type == "cpu"
        return points

    with PretendedCard():
        found = MeshReader(mesh)(torch.zeros(2, 100, 200, 3).to(CARD))
        assert {value.device for value in vars(found).values()} == {CARD}


class Ears(syncnet.SyncNet):
    """Networks that take no time."""

    def __init__(self):
        nn.Module.__init__(self)
        self.scale = nn.Parameter(torch.tensor(1 / 255), requires_grad=False)

    def hear(self, mfcc: torch.Tensor) -> torch.Tensor:
        return mfcc.flatten(1)[:, :3]

    def watch(self, faces: torch.Tensor) -> torch.Tensor:
        return faces.mean((2, 3, 4)) * self.scale


class Eyes(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean((2, 3)) * self.scale


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A second of a drawing that speaks."""
    made = clip("test", 0, (64, 96), 25)
    sound = Sound(torch.from_numpy(made.waveform)[None], 16_000)
    with VideoWriter(tmp_path / "clip.mp4", 64, 96, sound) as writer:
        writer.write(torch.from_numpy(made.frames) / 255)
    return tmp_path / "clip.mp4"


def test_a_report_and_fid(video, monkeypatch):
    monkeypatch.setattr(syncnet, "SyncNet", Ears)
    monkeypatch.setattr(syncnet, "fill", lambda *_: None)
    expected = evaluate(video, syncnet=Path("syncnet_v2.model"))
    features = fid.features(Eyes(), [video])
    with PretendedCard():
        found = report.evaluate(video, syncnet=Path("syncnet_v2.model"), device=CARD)
        on_card = fid.features(Eyes().to(CARD), [video])
    assert list(found.lines()) == list(expected.lines())
    assert torch.allclose(on_card, features)


def test_the_device_is_asked_for(video, monkeypatch, capsys):
    for device, status in (("cpu", 0), ("nonsense", 2)):
        given = ["hallo3_core", "evaluate", str(video), "--device", device]
        monkeypatch.setattr("sys.argv", given)
        assert command_line.main() == status
    assert "nonsense cannot be used" in capsys.readouterr().err
