"""Shots as latents in files."""

import numpy as np
import pytest
import torch

from hallo3_core import builtin
from training import examples
from training.examples import Examples, motion, prepare
from training_data import TwoShots, shot


def test_motion_frames_have_noise_and_holes_and_the_portrait_has_none():
    generator = torch.Generator().manual_seed(0)
    found = motion(shot(), 1, generator)
    assert torch.equal(found[:, 0], shot().portraits[1])
    holes = (found[:, 1:] == 0).all(dim=(0, 1))
    assert holes.float().mean().item() == pytest.approx(0.1, abs=0.03)
    noise = (found[:, 1:] - shot().frames[:, :2])[:, :, ~holes]
    assert 0.01 < noise.std() < 0.3


def test_shots_are_encoded_once_and_others_anew(tmp_path, monkeypatch):
    """Here in this process."""
    model = builtin.load()
    monkeypatch.setattr(examples, "DataLoader", lambda shots, **_: [*shots])

    def encoded(name: str) -> tuple[Examples, list[int]]:
        made = prepare(tmp_path, TwoShots(name), model.vae, model.speech_encoder)
        return made, [file.stat().st_mtime_ns for file in made.files]

    shots, made = encoded("one")
    assert encoded("one")[1] == made
    of_others = encoded("two")[1]
    assert not set(of_others) & set(made)
    model.vae.decoder.conv_out.conv.bias.data += 0.1
    assert encoded("two")[1] == of_others
    model.vae.encoder.conv_out.conv.bias.data += 0.1
    assert not set(encoded("two")[1]) & set(of_others)
    drawn = shots.draw(np.random.default_rng(0))
    assert drawn.video.shape == (16, 13, 4, 6)
    assert drawn.reference.shape == drawn.motion.shape == (16, 1, 4, 6)
    assert drawn.speech.shape == (49, 5, 12, 768)
    assert torch.equal(drawn.region, torch.ones(4, 6))
