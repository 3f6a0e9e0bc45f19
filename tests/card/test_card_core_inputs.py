"""Inputs from a card in half precision (pictures, masks, sounds), recorded numbers and measures.

The rest of the core gets the inputs on the CPU.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from npu import CARD
from torch import Tensor, nn

import parity
from hallo3_core import cli as command_line
from hallo3_core.evaluation import fid, report, syncnet
from hallo3_core.evaluation.reader import MeshReader, drawn_reader
from hallo3_core.evaluation.tracks import track
from hallo3_core.media.picture import one_mask, one_picture
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.portrait.face_mask import box_region
from hallo3_core.portrait.faces import draw, overlap
from hallo3_core.portrait.finders import InsightFace, find_frontal_faces
from hallo3_core.sound.audio import read_audio
from hallo3_core.speech.vocals import VocalIsolator
from onnx_files import antelopev2, mdx_net
from photograph import astronaut
from training.world.clips import clip
from training.world.film import film

CHECKS = (
    parity.check_forward,
    parity.check_sampler,
    parity.check_vae,
    parity.check_audio,
    parity.check_long_video,
)


@torch.no_grad()
def test_what_was_recorded():
    """The numbers of the published program, in float32."""
    model = parity.load_model(parity.FIXTURES, torch.float32, CARD)
    for check in CHECKS:
        for _, name, ours, recorded in check(parity.FIXTURES, model):
            assert parity.error(ours, recorded) < 1e-4, name


def test_what_was_recorded_is_near_in_bfloat16():
    assert 1e-4 < parity.bfloat16_error(parity.FIXTURES, CARD) < 0.05


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 0), (torch.float16, 1e-3)])
def test_images_and_masks(dtype, within):
    pixels, mask = numbers(1, 20, 30, 3), numbers(20, 30).round()
    picture, region = one_picture(pixels.to(CARD, dtype)), one_mask(mask.to(CARD, dtype), (20, 30))
    for found, expected in ((picture, pixels[0].movedim(-1, 0)), (region, mask)):
        assert (found.device.type, found.dtype) == ("cpu", torch.float32)
        assert (found - expected).abs().max() <= within


def test_portraits_in_half_precision(recorded_model):
    """They give the same Identity as the same numbers on the CPU."""
    image = numbers(3, 60, 90).half()
    region = box_region((20, 10, 50, 40), (60, 90))
    networks = recorded_model.vae, recorded_model.reference_network
    identity = encode_portrait(*networks, image.float(), region, SeededNoise(0))
    for picture, face in ((image.to(CARD), region), (image, region.to(CARD))):
        other = encode_portrait(*networks, picture, face, SeededNoise(0))
        assert torch.equal(other.portrait, identity.portrait)
        assert torch.equal(other.features[-1], identity.features[-1])


def test_faces(tmp_path):
    """The faces are at the same places as in float32 on the CPU."""
    picture, other = astronaut(), astronaut().half().to(CARD)
    (face,) = find_frontal_faces(picture)
    assert overlap(find_frontal_faces(other)[0].box, face.box) > 0.99
    assert torch.equal(draw(other, [face], 0), draw(picture, [face], 0))
    insightface = InsightFace(antelopev2(tmp_path, [(14, 12, 4, 0.8)]))
    (exact,), (found,) = insightface(picture), insightface(other)
    assert found.box == exact.box
    assert torch.allclose(found.embedding, exact.embedding, atol=1e-3)


def test_vocals(tmp_path):
    """Another node left the song on the card. onnxruntime works on the CPU."""
    isolate = VocalIsolator(mdx_net(tmp_path / "identity.onnx", bins=1024, frames=64))
    song = numbers(2, 30_000) - 0.5
    waveform, rate = read_audio(
        {"waveform": song[None].to(CARD), "sample_rate": torch.tensor(44_100, device=CARD)}, "It"
    )
    assert (waveform.device.type, rate) == ("cpu", 44_100)
    assert (isolate(waveform[0], rate) - song).abs().max() < 1e-4


def test_a_mesh_sees_pictures_on_the_cpu():
    """MediaPipe does not support cards."""
    points = np.random.default_rng(0).uniform(20, 80, (478, 2))

    def mesh(picture: Tensor) -> np.ndarray:
        assert picture.device.type == "cpu"
        return points

    found = MeshReader(mesh)(torch.zeros(2, 100, 200, 3, device=CARD))
    assert {value.device for value in vars(found).values()} == {CARD}


def test_tracks_of_a_clip():
    frames = clip("test", 0, (64, 96), 12).frames
    expected = vars(track(drawn_reader(), frames))
    found = vars(track(drawn_reader(CARD), frames, device=CARD))
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-4, nan_ok=True), name


class Ears(syncnet.SyncNet):
    """Networks that take no time."""

    def __init__(self):
        nn.Module.__init__(self)
        self.scale = nn.Parameter(torch.tensor(1 / 255), requires_grad=False)

    def hear(self, mfcc: Tensor) -> Tensor:
        return mfcc.flatten(1)[:, :3]

    def watch(self, faces: Tensor) -> Tensor:
        return faces.mean((2, 3, 4)) * self.scale


class Eyes(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3)) * self.scale


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """One second of a drawing that speaks."""
    return film(clip("test", 0, (64, 96), 25), tmp_path_factory.mktemp("video") / "clip.mp4")


def test_a_report_and_fid(video, monkeypatch):
    monkeypatch.setattr(syncnet, "SyncNet", Ears)
    monkeypatch.setattr(syncnet, "fill", lambda *_: None)
    reports = [
        report.evaluate(video, syncnet=Path("syncnet_v2.model"), device=device)
        for device in ("cpu", CARD)
    ]
    assert list(reports[0].lines()) == list(reports[1].lines())
    found = fid.features(Eyes().to(CARD), [video])
    assert torch.allclose(found, fid.features(Eyes(), [video]))


def test_evaluate_by_the_command_line(video, monkeypatch, capsys):
    printed = []
    for device in ("cpu", "npu"):
        given = ["hallo3_core", "evaluate", str(video), "--device", device]
        monkeypatch.setattr(sys, "argv", given)
        assert command_line.main() == 0
        printed.append(capsys.readouterr().out)
    assert "lip sync" in printed[0]
    assert printed[0] == printed[1]
