"""Faces: found by whatever is installed, chosen, drawn, framed."""

import importlib
import logging
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from hallo3_core import builtin, faces
from hallo3_core.errors import InputError
from hallo3_core.faces import (
    InsightFace,
    choose,
    draw,
    find_frontal_faces,
    open_finder,
    overlap,
)
from hallo3_core.mesh import oval_box
from hallo3_core.portrait import box_region, region_box
from onnx_files import antelopev2
from parity import FIXTURES
from photograph import astronaut

ASTRONAUT = (179, 71, 271, 177)
"""What MediaPipe's face mesh finds in the picture, by its oval."""


def turned(picture: torch.Tensor, degrees: float) -> torch.Tensor:
    image = Image.fromarray((picture * 255).byte().permute(1, 2, 0).numpy())
    return torch.from_numpy(np.array(image.rotate(degrees))).permute(2, 0, 1) / 255


def test_a_frontal_face_is_found_where_mediapipe_finds_it():
    assert overlap(find_frontal_faces(astronaut())[0].box, ASTRONAUT) > 0.85


def test_the_size_of_the_picture_does_not_matter():
    large = torch.nn.functional.interpolate(astronaut()[None], scale_factor=3, mode="bilinear")[0]
    box = find_frontal_faces(large)[0].box
    assert overlap([edge / 3 for edge in box], ASTRONAUT) > 0.8


@pytest.mark.parametrize("degrees", [-17, 17])
def test_a_tilted_face(degrees):
    """It is where the upright one goes when the picture is turned about its middle."""
    tilted = turned(astronaut(), degrees)
    box = find_frontal_faces(tilted)[0].box
    angle = np.radians(-degrees)
    middle = np.array([(ASTRONAUT[0] + ASTRONAUT[2]) / 2, (ASTRONAUT[1] + ASTRONAUT[3]) / 2]) - 256
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = turn @ middle + 256
    found = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
    assert np.abs(found - expected).max() < 25


def test_a_picture_without_a_face():
    bricks = torch.from_numpy(skimage.data.brick()).expand(3, -1, -1) / 255
    assert find_frontal_faces(bricks) == []
    assert find_frontal_faces(torch.zeros(3, 16, 700)) == []
    assert choose([], 3) is None


def test_insightface_finds_aligns_and_embeds(tmp_path):
    """On networks of the real names, inputs and outputs; alignment is InsightFace's own."""
    folder = antelopev2(tmp_path, [(5, 6, 3, 0.9), (14, 12, 4, 0.8)])
    picture = torch.rand(3, 320, 320, generator=torch.Generator().manual_seed(1))
    found = InsightFace(folder)(picture)
    assert [round(face.score, 2) for face in found] == [0.8, 0.9]
    # half the size of what the detector sees
    box = np.array([14 - 4, 12 - 4, 14 + 4, 12 + 4]) * 32 / 2
    assert overlap(found[0].box, box) > 0.8
    assert overlap(found[1].box, np.array([2, 3, 8, 9]) * 16) > 0.8

    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    spots = np.array([(-0.5, -0.4), (0.5, -0.4), (0, 0.1), (-0.4, 0.5), (0.4, 0.5)])
    landmarks = (np.array([14, 12]) + 4 * spots) * 16
    norm_crop = importlib.import_module("insightface.utils.face_align").norm_crop
    aligned = norm_crop(pixels, landmarks.astype(np.float32))
    expected = (aligned.reshape(-1, 3).mean(0) - 127.5) / 127.5
    embedding = found[0].embedding
    assert embedding.shape == (1, 512)
    assert np.allclose(embedding[0, :3], expected, atol=1e-3)
    assert (embedding[0, 3:] == 0).all()


def test_no_face_by_insightface(tmp_path):
    assert InsightFace(antelopev2(tmp_path, []))(torch.rand(3, 100, 200)) == []


def test_face_models_that_are_damaged(tmp_path):
    folder = antelopev2(tmp_path, [])
    (folder / faces.RECOGNISER).write_bytes(b"version https://git-lfs")
    with pytest.raises(InputError, match=r"download scrfd_10g_bnkps\.onnx and glintr100"):
        InsightFace(folder)


def test_what_is_missing_is_said(tmp_path, caplog, monkeypatch):
    with caplog.at_level(logging.WARNING):
        assert open_finder([tmp_path / "models"]) is find_frontal_faces
    assert (
        f"put antelopev2's scrfd_10g_bnkps.onnx and glintr100.onnx into {tmp_path}" in caplog.text
    )
    caplog.clear()
    antelopev2(tmp_path, [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert open_finder([tmp_path]) is find_frontal_faces
    assert "`pip install insightface onnxruntime`" in caplog.text
    monkeypatch.undo()
    caplog.clear()
    assert isinstance(open_finder([tmp_path]), InsightFace)
    assert not caplog.text


def test_the_oval_of_mediapipe(tmp_path, monkeypatch):
    """Of its 478 landmarks those around the face count."""
    marks = [SimpleNamespace(x=0.5, y=0.5) for _ in range(478)]
    marks[0] = SimpleNamespace(x=0.0, y=0.0)  # the lips
    marks[10], marks[152] = SimpleNamespace(x=0.5, y=0.2), SimpleNamespace(x=0.5, y=0.8)
    marks[234], marks[454] = SimpleNamespace(x=0.3, y=0.5), SimpleNamespace(x=0.6, y=0.5)
    seen = []

    class Landmarker:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def detect(self, image):
            seen.append(image)
            return SimpleNamespace(face_landmarks=[marks])

    vision = SimpleNamespace(
        FaceLandmarkerOptions=lambda base_options: base_options,
        FaceLandmarker=SimpleNamespace(create_from_options=lambda options: Landmarker()),
    )
    tasks = SimpleNamespace(vision=vision, BaseOptions=lambda model_asset_path: model_asset_path)
    fake = SimpleNamespace(
        tasks=tasks,
        ImageFormat=SimpleNamespace(SRGB=1),
        Image=lambda image_format, data: data,
    )
    monkeypatch.setitem(sys.modules, "mediapipe", fake)
    box = oval_box(torch.ones(3, 100, 200), tmp_path / "face.task")
    assert box == pytest.approx((60, 20, 120, 80))
    assert seen[0].shape == (100, 200, 3)
    assert (seen[0] == 255).all()


def test_the_chosen_face_is_green():
    found = [faces.Face((20, 20, 60, 60), 0.9), faces.Face((70, 70, 90, 90))]
    drawn = draw(torch.zeros(3, 100, 100), found, chosen=1)
    assert drawn[:, 20, 40].tolist() == pytest.approx([1, 165 / 255, 0])
    assert drawn[:, 70, 80].tolist() == [0, 1, 0]
    with pytest.raises(InputError, match="There is no face 2: 2 were found, from 0 to 1"):
        choose(found, 2)


def test_a_box_past_the_edge_is_a_region_inside():
    region = box_region((-30, 10, 50, 70), (60, 80), growth=1)
    assert region_box(region) == (0, 10, 50, 60)
    assert box_region((-9, -9, -5, -5), (60, 80)).sum() >= 1


def test_the_command_line_frames_the_face(tmp_path):
    framing = tmp_path / "framing.png"
    command = [sys.executable, "-m", "hallo3_core", "animate", "--steps", "1", "--quiet"]
    options = ["--output", tmp_path / "video.mp4", "--framing", framing, "--fit", "crop"]
    done = subprocess.run(
        [*command, *options, "--speech", FIXTURES.parent / "short.wav"],
        capture_output=True,
        text=True,
        cwd=FIXTURES.parents[1],
    )
    assert "There is no sound file" in done.stderr
    drawn = np.array(Image.open(framing))
    assert (drawn[70:180, 170:280] == [0, 255, 0]).all(-1).any()


def test_the_example_portrait_is_found():
    """On the picture's face: brows, eyes, nose and mouth are inside the box."""
    (face,) = find_frontal_faces(builtin.portrait())
    assert overlap(face.box, (130, 150, 375, 440)) > 0.6
    assert len(find_frontal_faces(builtin.group())) == 2
