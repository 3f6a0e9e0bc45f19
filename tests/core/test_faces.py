"""Faces are found with what is installed, chosen, drawn and framed."""

import importlib
import logging
import multiprocessing
import pickle
import sys
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from hallo3_core import builtin, examples, onnx
from hallo3_core.cli import parse
from hallo3_core.cli.animate.inputs import find_face
from hallo3_core.errors import InputError
from hallo3_core.portrait import finders
from hallo3_core.portrait.face_mask import box_region, region_box
from hallo3_core.portrait.faces import Face, choose, draw, overlap
from hallo3_core.portrait.finders import (
    InsightFace,
    find_frontal_faces,
    insightface_missing,
    no_face,
    open_finder,
)
from hallo3_core.portrait.framing import crop
from hallo3_core.portrait.mesh import oval_box
from onnx_files import antelopev2
from photograph import astronaut

ASTRONAUT = (179, 71, 271, 177)
"""The box of the oval of MediaPipe's face mesh in this picture."""


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
    """The box is the upright one, moved by the rotation about the middle of the picture."""
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
    assert choose([], 3) is None


@pytest.mark.parametrize("size", [(16, 700), (1000, 20), (16, 16), (16, 1600)])
def test_pictures_too_small_or_thin_for_a_face(size):
    assert find_frontal_faces(torch.zeros(3, *size)) == []


def test_insightface_finds_aligns_and_embeds(tmp_path):
    """The networks have the real names, inputs and outputs. InsightFace aligns the face."""
    folder = antelopev2(tmp_path, [(5, 6, 3, 0.9), (14, 12, 4, 0.8)])
    picture = torch.rand(3, 320, 320, generator=torch.Generator().manual_seed(1))
    found = InsightFace(folder)(picture)
    assert [round(face.score, 2) for face in found] == [0.8, 0.9]
    # the detector sees twice the size
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


def test_a_face_model_that_is_damaged_is_named(tmp_path):
    folder = antelopev2(tmp_path, [])
    recogniser = folder / finders.RECOGNISER
    whole = recogniser.read_bytes()
    recogniser.write_bytes(b"version https://git-lfs")
    with pytest.raises(InputError, match=rf"{recogniser} is a Git LFS pointer, not a face model"):
        InsightFace(folder)
    recogniser.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"{recogniser} cannot be loaded \(InvalidProtobuf\)"):
        InsightFace(folder)
    recogniser.write_bytes((folder / finders.DETECTOR).read_bytes())
    with pytest.raises(InputError, match=rf"{recogniser} is for detection, not for recognition"):
        InsightFace(folder)


def in_fork(work):
    """Run `work` in a process that is forked from this one, with one torch thread.

    The other threads do not exist after a fork, and torch would wait for them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work()), daemon=True)
    process.start()
    torch.set_num_threads(threads)
    assert receiver.poll(timeout=60), "the process hangs"
    process.join()
    return receiver.recv()


def test_sessions_are_opened_again_after_a_fork(tmp_path):
    """The threads of the old sessions do not exist in the new process."""
    finder = InsightFace(antelopev2(tmp_path, [(14, 12, 4, 0.8)]))
    picture = torch.rand(3, 320, 320, generator=torch.Generator().manual_seed(1))
    (face,) = finder(picture)

    def find():
        networks = finder.networks.opened
        return [face.box for face in finder(picture)], len(networks)

    assert in_fork(find) == ([face.box], 2)
    assert in_fork(onnx.providers) == ["CPUExecutionProvider"]
    assert len(finder.networks.opened) == 1
    (copied,) = pickle.loads(pickle.dumps(finder))(picture)
    assert copied.box == face.box


def test_what_is_missing_is_said_where_it_is_missed(tmp_path, caplog, monkeypatch):
    """Opening the finder logs nothing. Most portraits do not need InsightFace."""
    with caplog.at_level(logging.WARNING):
        assert open_finder([tmp_path / "models"]) is find_frontal_faces
    assert not caplog.text
    missing = f"put antelopev2's scrfd_10g_bnkps.onnx and glintr100.onnx into {tmp_path / 'models'}"
    assert insightface_missing([tmp_path / "models"]) == missing
    assert no_face("Paint one.", [tmp_path / "models"]) == (
        "No face was found: the whole picture counts as one. Paint one. InsightFace finds faces "
        f"from all sides: {missing}."
    )
    antelopev2(tmp_path, [])
    assert no_face("Paint one.", [tmp_path / "models", tmp_path]).endswith("one. Paint one.")
    assert isinstance(open_finder([tmp_path / "models", tmp_path]), InsightFace)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert open_finder([tmp_path]) is find_frontal_faces
    assert insightface_missing([tmp_path]) == "`pip install insightface onnxruntime`"


def test_the_oval_of_mediapipe(tmp_path, monkeypatch):
    """Only the landmarks around the face count, of 478."""
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
    task = tmp_path / "face.task"
    task.write_bytes(b"a web page")
    with pytest.raises(InputError, match=rf"{task} is text, not a Face Landmarker task"):
        oval_box(torch.ones(3, 100, 200), task)
    task.write_bytes(b"PK")
    box = oval_box(torch.ones(3, 100, 200), task)
    assert box == pytest.approx((60, 20, 120, 80))
    assert seen[0].shape == (100, 200, 3)
    assert (seen[0] == 255).all()


def test_the_chosen_face_is_green():
    found = [Face((20, 20, 60, 60), 0.9), Face((70, 70, 90, 90))]
    drawn = draw(torch.zeros(3, 100, 100), found, chosen=1)
    assert drawn[:, 20, 40].tolist() == pytest.approx([1, 165 / 255, 0])
    assert drawn[:, 70, 80].tolist() == [0, 1, 0]


def test_faces_that_are_not_there():
    found = [Face((20, 20, 60, 60), 0.9), Face((70, 70, 90, 90))]
    assert choose(found, 1) is found[1]
    with pytest.raises(InputError, match="no face 2: 2 were found, from 0 to 1, the largest first"):
        choose(found, 2)
    with pytest.raises(InputError, match=r"no face 5: only one was found, which is 0\.$"):
        choose(found[:1], 5)
    for known in (found, []):
        with pytest.raises(InputError, match="no face -1: the largest is 0, the others follow"):
            choose(known, -1)


def test_a_box_past_the_edge_is_a_region_inside():
    region = box_region((-30, 10, 50, 70), (60, 80), growth=1)
    assert region_box(region) == (0, 10, 50, 60)
    assert box_region((-9, -9, -5, -5), (60, 80)).sum() >= 1
    assert region_box(box_region((90, 70, 99, 99), (60, 80), growth=1)) == (79, 59, 80, 60)


def options_of(*arguments) -> Namespace:
    return parse(["animate", *map(str, arguments)])


def test_the_command_line_finds_the_face(tmp_path, caplog):
    """It draws the faces, and says what is missing only if no face is found."""
    options = options_of("--framing", tmp_path / "framing.png", "--face-models", tmp_path)
    region, embedding = find_face(options, astronaut())
    assert region_box(region) == region_box(
        box_region(find_frontal_faces(astronaut())[0].box, (512, 512))
    )
    assert embedding is None
    assert not caplog.text
    drawn = np.array(Image.open(tmp_path / "framing.png"))
    assert (drawn[70:180, 170:280] == [0, 255, 0]).all(-1).any()

    assert find_face(options_of("--whole-image"), torch.zeros(3, 90, 90)) == (None, None)
    assert not caplog.text
    options = options_of("--face-models", tmp_path)
    assert find_face(options, torch.zeros(3, 90, 90)) == (None, None)
    assert caplog.messages == [no_face("Paint a --face-mask.", [tmp_path])]
    for growth in (0.1, 9):
        with pytest.raises(
            InputError, match=f"The growth of the face box is {growth}: choose 0.5 to 5"
        ):
            find_face(options_of("--face-growth", growth), astronaut())


def test_a_picture_of_ones_own_on_the_built_in_model(tmp_path, caplog):
    """A warning says that the built-in model knows only drawn faces.

    There is no warning for the example or for other models.
    """
    known = "The built-in model knows only drawn faces: for a photograph take the released one, "
    picture = tmp_path / "p.png"
    find_face(options_of("--portrait", picture), astronaut())
    assert [text.startswith(known) for text in caplog.messages] == [True]
    caplog.clear()
    find_face(options_of(), astronaut())
    find_face(options_of("--portrait", picture, "--model", builtin.WEIGHTS), astronaut())
    assert not [text for text in caplog.messages if text.startswith(known)]


def test_the_released_model_misses_the_embedding(tmp_path, caplog):
    options = options_of("--model", builtin.WEIGHTS, "--face-models", tmp_path)
    find_face(options, astronaut())
    (message,) = caplog.messages
    assert message.startswith(
        "InsightFace is not used, so the model gets no face embedding, only the picture. To install"
    )


def test_the_example_portrait_is_found():
    """The box contains brows, eyes, nose and mouth."""
    (face,) = find_frontal_faces(examples.portrait())
    assert overlap(face.box, (130, 150, 375, 440)) > 0.6


def test_the_group_is_two_people_far_apart():
    """With `crop`, each face is in the middle, and no part of the other is visible."""
    picture, canvas = examples.group(), builtin.CONFIG.canvas
    size, two = tuple(picture.shape[1:]), find_frontal_faces(picture)
    assert len(two) == 2
    for face, other in (two, two[::-1]):
        framing = crop(size, canvas, face.box)
        left, _, right, _ = framing.box(face.box, size)
        assert (left + right) / 2 == pytest.approx(canvas[1] / 2, abs=4)
        assert framing.share(face.box, size) == 1
        far_left, _, far_right, _ = framing.box(other.box, size)
        hair = 0.35 * (far_right - far_left)
        assert far_right + hair < 0 or far_left - hair > canvas[1]
    near, far = (picture[:, :, :768], picture[:, :, 768:].flip(2))
    assert (near - far).abs().mean() > 0.1
