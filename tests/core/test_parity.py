"""The numbers of the published program, compared by the script that users run."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import parity
from parity import FIXTURES

CHECKED = {
    "schedule": 21,
    "reference": 3,
    "projectors": 2,
    "denoiser": 1,
    "sampler": 2,
    "vae": 7,
    "speech": 9,
    "portrait": 5,
    "long video": 9,
}


def test_everything_recorded_agrees():
    errors: dict[str, list[float]] = {}
    for check, _, error in parity.compare(FIXTURES):
        errors.setdefault(check, []).append(error)
    assert {check: len(found) for check, found in errors.items()} == CHECKED
    assert max(max(found) for found in errors.values()) < 1e-4


def test_bfloat16_is_within_five_per_cent():
    assert parity.bfloat16_error(FIXTURES) < 0.05


@pytest.mark.parametrize("wrapper", ["module", "state_dict"])
def test_published_checkpoints_load_like_safetensors(tmp_path: Path, recorded_model, wrapper):
    folder = tmp_path / "recorded"
    shutil.copytree(FIXTURES, folder)
    for name, file in (("transformer", "mp_rank_00_model_states.pt"), ("vae", "3d-vae.pt")):
        weights = folder / f"{name}_weights.safetensors"
        extra = {"loss.logvar": torch.zeros(()), "conditioner.embedders.0.x": torch.zeros(2)}
        torch.save({wrapper: load_file(weights) | extra}, folder / file)
        weights.unlink()
    model = parity.load_model(folder, torch.float32)
    for network in ("denoiser", "reference_network", "audio_projector", "vae"):
        expected = getattr(recorded_model, network).state_dict()
        loaded = getattr(model, network).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_parity_notices_a_wrong_number(recorded_model):
    recorded = torch.randn(100)
    wrong = recorded.clone()
    wrong[7] += 1e-3
    assert parity.error(recorded, recorded) == 0
    assert parity.error(wrong, recorded) == pytest.approx(1e-3 / recorded.std().item(), rel=0.01)
