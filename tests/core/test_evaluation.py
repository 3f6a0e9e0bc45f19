"""The measures of a video, on pictures and tracks with known answers."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.filters import gaussian

from hallo3_core.errors import InputError
from hallo3_core.evaluation import evaluate
from hallo3_core.evaluation.likeness import cut_face, distance, outside_mouth
from hallo3_core.evaluation.reader import MeshReader, drawn_reader
from hallo3_core.evaluation.report import median, seams
from hallo3_core.evaluation.sharpness import cpbd
from hallo3_core.evaluation.sync import best_lag, correlation, envelope
from hallo3_core.evaluation.tracks import track
from hallo3_core.portrait.faces import Face
from training.world.clips import clip
from training.world.film import film


def test_envelope_of_a_sound_that_doubles():
    """A sine of amplitude 0.5, then 1, has root mean squares of 0.354 and 0.707."""
    time = np.arange(32_000) / 16_000
    waveform = np.sin(2 * np.pi * 200 * time) * np.where(time < 1, 0.5, 1)
    found = envelope(waveform, 16_000, 50)
    assert found[:25] == pytest.approx(0.5 / 2**0.5, rel=1e-3)
    assert found[25:] == pytest.approx(1 / 2**0.5, rel=1e-3)


def test_a_video_that_is_longer_than_its_sound():
    assert envelope(np.ones(16_000), 16_000, 30)[25:].tolist() == [0] * 5


@pytest.mark.parametrize("late", [-3, 0, 2, 7])
def test_lag_of_a_delayed_mouth(late):
    speech = np.random.default_rng(0).random(200)
    r, lag = best_lag(np.roll(speech, late) * 0.1 + 0.3, speech)
    assert lag == late
    assert r == pytest.approx(1)


def test_a_mouth_that_stays_shut_follows_nothing():
    assert correlation(np.zeros(50), np.random.default_rng(0).random(50)) == 0


def test_blur_is_measured():
    """The CPBD of a photograph falls when it is blurred more."""
    picture = skimage.data.camera().astype(float)
    found = [cpbd(picture)] + [cpbd(gaussian(picture, sigma)) for sigma in (1, 2, 4)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.5
    assert found[-1] < 0.05
    assert np.isnan(cpbd(np.full((128, 128), 100.0)))


def test_faces_are_compared_without_the_mouth():
    """The same face at another place and twice as large has no distance.

    The mouth does not count.
    """
    torch.manual_seed(0)
    small = torch.rand(1, 8, 8, 3).repeat_interleave(8, 1).repeat_interleave(8, 2)
    large = torch.zeros(1, 200, 200, 3)
    large[:, 40:168, 20:148] = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    whole = torch.tensor([[0.0, 0, 1, 1]])
    inside = torch.tensor([[0.1, 0.2, 0.74, 0.84]])
    mouth = torch.tensor([[0.3, 0.6, 0.7, 0.8]])
    kept = outside_mouth(whole, mouth)
    face = cut_face(small, whole)
    assert kept.mean().item() == pytest.approx(1 - 0.6 * 0.3, abs=0.02)
    assert distance(cut_face(large, inside), face, kept).item() < 0.02
    changed = small.clone()
    changed[:, 40:50, 20:44] = 0
    assert distance(cut_face(changed, whole), face, kept).item() == 0
    changed[:, :10] = 1 - changed[:, :10]
    assert distance(cut_face(changed, whole), face, kept).item() > 0.05


def test_a_drawn_clip_as_a_video(tmp_path):
    """The command line finds that it is in sync, steady, and always the same person."""
    file = film(clip("test", 0, (128, 128), 100), tmp_path / "clip.mp4")
    report = evaluate(file)
    assert report.frames == 100
    assert report.sync_at_lag > 0.5
    assert abs(report.lag) <= 2
    assert report.identity < 0.08
    assert report.sharpness > 0.3
    assert report.seams < 1.5
    other = tmp_path / "other.png"
    Image.fromarray(clip("test", 3, (128, 128), 9).frames[0]).save(other)
    assert evaluate(file, other).identity > 2 * report.identity


def test_a_single_frame_has_no_flicker(tmp_path, recwarn):
    """It has no frame before it. That is no warning of numpy."""
    made = clip("test", 0, (128, 128), 9)
    made = replace(made, frames=made.frames[:1])
    report = evaluate(film(made, tmp_path / "clip.mp4"))
    assert report.frames == 1
    assert not [each for each in recwarn if each.category is RuntimeWarning]
    assert np.isnan(report.flicker)
    assert report.sharpness > 0.3


def test_seams_are_jumps_every_47_frames():
    jump = np.ones(150)
    jump[0] = np.nan
    jump[[47, 94, 141]] = 3
    assert seams(jump) == 3
    assert np.isnan(seams(jump[:47]))


def test_a_face_by_its_mesh():
    """The lips are 6 pixels apart, and the oval is 60 pixels high.

    A frame without a face repeats the previous one.
    """
    points = np.full((478, 2), 50.0)
    points[10], points[152], points[234], points[454] = (50, 20), (50, 80), (30, 50), (70, 50)
    points[61], points[291], points[0], points[17] = (40, 60), (60, 60), (50, 55), (50, 68)
    points[13], points[14] = (50, 58), (50, 64)
    meshes = iter([points, None])
    found = MeshReader(lambda picture: next(meshes))(torch.zeros(2, 100, 200, 3))
    assert found.opening.tolist() == pytest.approx([0.1, 0.1])
    assert found.face[1].tolist() == pytest.approx([0.15, 0.2, 0.35, 0.8])
    assert found.mouth[0].tolist() == pytest.approx([0.2, 0.5, 0.3, 0.68])


def test_a_video_without_a_face():
    with pytest.raises(InputError, match="No face was found"):
        MeshReader(lambda picture: None)(torch.zeros(1, 100, 200, 3))


def test_embeddings_are_compared_with_the_portraits():
    """Every tenth frame is compared.

    One embedding is 60 degrees off. In another frame no face is found.
    """
    embeddings = [torch.tensor([[1.0, 0]]), torch.tensor([[2.0, 2 * 3**0.5]])]
    answers = iter([[Face((0, 0, 1, 1), 1.0, e)] for e in embeddings] + [[]])
    frames = [np.zeros((64, 64, 3), np.uint8)] * 11
    found = track(drawn_reader(), frames, finder=lambda picture: next(answers)).likeness
    assert found[0] == pytest.approx(0.5)
    assert np.isnan(found[1:]).all()
    assert median(found) == pytest.approx(0.5)
