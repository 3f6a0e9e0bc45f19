"""A denoiser learns mouths from one student, and everything else from clips."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from training import combined
from training.denoiser import batch_of
from training.loop import Settings, mixed_precision
from training.networks import Networks
from training_data import CONFIG, One, example


def networks(seed: int) -> Networks:
    torch.manual_seed(seed)
    return Networks(Denoiser(CONFIG), ReferenceNetwork(CONFIG), AudioProjector(CONFIG))


def test_the_student_begins_between_the_two():
    mine, other = networks(0), networks(1)
    weights = [
        (a + b) / 2
        for a, b in zip(mine.denoiser.parameters(), other.denoiser.parameters(), strict=True)
    ]
    reference = [p.clone() for p in mine.reference_network.parameters()]
    combined.average(mine, other)
    for found, mean in zip(mine.denoiser.parameters(), weights, strict=True):
        assert torch.allclose(found, mean, atol=1e-6)
    assert all(map(torch.equal, mine.reference_network.parameters(), reference))


def test_mouths_are_the_teachers_and_the_rest_is_the_clips():
    """The mouth is one pixel of 4 by 6. Those around it, also the diagonal ones, count as mouth."""
    lips = torch.zeros(4, 6)
    lips[3, 2] = 0.1
    noise = torch.randn(1, 16, 13, 4, 6)
    clip = torch.randn_like(noise)
    batch = batch_of([replace(example(), lips=lips)], noise, torch.full((1,), 749), clip)
    teacher = networks(0)
    target = combined.with_mouths_of(teacher, batch).target
    with mixed_precision(), torch.no_grad():
        own = teacher(batch).float()
    mouth = torch.zeros(4, 6, dtype=torch.bool)
    mouth[2:, 1:4] = True
    assert torch.equal(target[..., mouth], own[..., mouth])
    assert torch.equal(target[..., ~mouth], clip[..., ~mouth])


@pytest.mark.parametrize("stage", ["trajectory", "combined"])
def test_both_trainings_change_the_denoiser_only(stage, tmp_path, monkeypatch):
    for name in ("TRAJECTORY", "COMBINED"):
        settings = Settings(steps=3, rate=1e-3, warmup=1)
        monkeypatch.setattr(combined, name, replace(getattr(combined, name), settings=settings))
    monkeypatch.setattr(combined, "GROUPS", 1)
    monkeypatch.setattr("training.loop.LOG_STEPS", 1)
    student = networks(0)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    if stage == "trajectory":
        made = combined.by_trajectory(student, One(), tmp_path)
    else:
        made = combined.train(student, networks(1), One(), tmp_path)
    rows = (tmp_path / stage / "losses.jsonl").read_text().splitlines()
    assert len(rows) == 3
    assert all(np.isfinite(json.loads(row)["v"]) for row in rows)
    changed = {n.split(".")[0] for n, v in made.state_dict().items() if not v.equal(before[n])}
    assert changed == {"denoiser"}


def test_the_student_ends_between_the_training_and_the_student_of_clips(tmp_path, monkeypatch):
    settings = Settings(steps=0, rate=1e-3)
    monkeypatch.setattr(combined, "COMBINED", replace(combined.COMBINED, settings=settings))
    mine, other = networks(0), networks(1)
    made = combined.train(mine, other, One(), tmp_path).denoiser.parameters()
    both = zip(mine.denoiser.parameters(), other.denoiser.parameters(), strict=True)
    for found, (a, b) in zip(made, both, strict=True):
        assert torch.allclose(found, 0.75 * a + 0.25 * b, atol=1e-6)
