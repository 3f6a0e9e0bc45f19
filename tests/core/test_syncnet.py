"""SyncNet, with random weights in a file with the published names."""

import numpy as np
import pytest
import torch

from hallo3_core.errors import InputError
from hallo3_core.evaluation import syncnet
from hallo3_core.evaluation.syncnet import SyncNet, face_squares, load_syncnet, mfcc, sync

FRAMES = 40
MFCC = [23.198, 17.445, -21.13, -41.695, -26.165, 8.044, 28.097, 18.314, -3.994, -15.777]
MFCC += [-10.204, -0.48, 2.605]
"""Row 4 of python_speech_features.mfcc(SWEEP * 32768), version 0.6."""
SWEEP = np.sin(np.arange(1600) ** 2 / 5000)


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(FRAMES * 640) * 0.1


def test_mfcc_are_those_that_it_was_trained_with():
    found = mfcc(SWEEP)
    assert found.shape == (9, 13)
    assert found[4] == pytest.approx(MFCC, abs=1e-3)


def test_lips_are_compared_with_every_shift_of_the_sound(waveform):
    """The networks copy their input.

    The lips show the sound of three frames later, so they fit best at that shift.
    """
    heard = torch.from_numpy(mfcc(waveform)).T.unfold(1, 20, 4)
    network = SyncNet()
    network.hear = lambda sounds: sounds.flatten(1)
    carried = iter(heard.movedim(1, 0)[3:].flatten(1).split(syncnet.BATCH))
    network.watch = lambda lips: next(carried)[: len(lips)]
    frames = heard.shape[1] - 3
    faces = torch.zeros(frames + 4, 3, 1, 1, dtype=torch.uint8)
    found = sync(network, faces, waveform)
    assert found.shift == 3
    assert found.distance < 0.4 * (found.distance + found.confidence)


def test_a_file_of_its_authors(tmp_path, waveform):
    """The weights of the file are used, and so are the statistics of its batch norms."""
    torch.manual_seed(0)
    network = SyncNet().eval().requires_grad_(False)
    assert "netcnnlip.18.weight" in network.state_dict()
    torch.save(network.state_dict(), tmp_path / "syncnet_v2.model")
    faces = torch.randint(256, (FRAMES, 3, 224, 224), dtype=torch.uint8)
    found = sync(load_syncnet(tmp_path / "syncnet_v2.model"), faces, waveform)
    assert found == sync(network, faces, waveform)


def test_another_file(tmp_path):
    (tmp_path / "other.model").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"other\.model is text, not weights"):
        load_syncnet(tmp_path / "other.model")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.model")
    with pytest.raises(InputError, match=r"is not SyncNet \(0 of its 102 tensors are there\)"):
        load_syncnet(tmp_path / "other.model")


def test_the_square_around_a_face():
    """The face has 40 x 40 of 100 x 200 pixels. 8 are added on each side, and 16 below."""
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[20:60, 80:120] = 255
    (square,) = face_squares([frame], np.array([[0.4, 0.2, 0.6, 0.6]]))
    assert square.shape == (3, 224, 224)
    assert (square[0] > 127).float().mean().item() == pytest.approx((40 / 56) ** 2, abs=0.02)
    assert square[0, :150, 112].min() > 127
    assert square[0, -60:, 112].max() == 0
