"""What the denoiser is trained on: noise, conditions, strangers, stages and the loss."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

from hallo3_core.sampling.schedule import denoiser_alphas
from training import denoiser, finetune
from training.loop import Settings
from training.networks import Batch, Networks
from training_data import CONFIG, One, example


def test_the_target_is_v():
    """x0 = alpha x - sigma v, at every timestep that was drawn, pure noise included."""
    batch = denoiser.draw_batch(One(), replace(denoiser.SPEECH, batch=64), step=3)
    alpha = denoiser_alphas()[batch.timesteps].float().view(-1, 1, 1, 1, 1)
    found = alpha * batch.latents - (1 - alpha**2).sqrt() * batch.target
    assert (found - example().video).abs().max() < 1e-4
    assert batch.latents.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise, below, above", [(1, 0.25, 0.25), (2, 0.134, 0.5)])
def test_timesteps_are_uniform_or_oftener_noisy(noise, below, above):
    """Shares of the quarters with the least noise and with the most."""
    stage = replace(denoiser.SPEECH, noise=noise, batch=10_000)
    drawn = denoiser.draw_timesteps(stage, np.random.default_rng(0))
    assert (drawn.min(), drawn.max()) == (0, 999)
    assert (drawn < 250).float().mean().item() == pytest.approx(below, abs=0.02)
    assert (drawn >= 750).float().mean().item() == pytest.approx(above, abs=0.02)


def test_conditions_are_dropped_at_the_published_rates():
    generator, shares = np.random.default_rng(0), finetune.STAGES["speech"].dropped
    shown = example()
    drawn = [denoiser.drop(shown, shares, generator) for _ in range(1000)]
    for name in ("speech", "reference", "motion"):
        dropped = sum(not getattr(row, name).any() for row in drawn)
        assert 30 < dropped < 72, name
    first = sum(bool(row.speech.any()) and not row.speech[:2].any() for row in drawn)
    assert 190 < first < 290


def test_a_stranger_has_the_face_in_the_motion_frames():
    """Where it is known, and nothing else."""
    region = torch.zeros(4, 6)
    region[1:3, 2:4] = 1
    shown = replace(example(), motion=torch.zeros(16, 1, 4, 6), region=region)
    stranger = replace(example(), motion=torch.ones(16, 1, 4, 6))
    found = denoiser.with_face_of(stranger, shown)
    assert torch.equal(found.motion, region.expand(16, 1, 4, 6))
    assert torch.equal(found.reference, shown.reference)
    unknown = replace(shown, region=torch.ones(4, 6))
    assert torch.equal(denoiser.with_face_of(stranger, unknown).motion, shown.motion)


def test_a_strangers_face_is_an_oval():
    """The corners stay: pi / 4 of the box is the stranger's."""
    region = torch.zeros(160, 240)
    region[20:140, 100:160] = 1
    face = denoiser.oval(region)
    assert face.sum().item() == pytest.approx(torch.pi / 4 * 120 * 60, rel=0.01)
    rows, columns = face.any(1).nonzero(), face.any(0).nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 139, 100, 159)


@pytest.mark.parametrize("share", [0, 0.6])
def test_some_examples_have_strangers(share):
    """The face is in the left half of the picture, and has its middle."""
    numbers, speaker = count(), One()
    region = (torch.arange(6) < 3).float().expand(4, 6)
    speaker.draw = lambda generator: replace(
        speaker.example, motion=torch.full((16, 1, 4, 6), float(next(numbers))), region=region
    )
    kept = dict.fromkeys(denoiser.PUBLISHED, 0)
    stage = replace(denoiser.SPEECH, batch=500, dropped=kept, strangers=share)
    own = torch.arange(500.0).view(-1, 1, 1, 1, 1)
    changed = denoiser.draw_batch(speaker, stage, 0).motion != own
    assert changed[..., 1, 1].float().mean().item() == pytest.approx(share, abs=0.06)
    assert not changed[..., 3:].any()
    absent = replace(stage, dropped=kept | {"motion": 1})
    assert not denoiser.draw_batch(speaker, absent, 0).motion.any()


def test_captions_of_some():
    text = torch.ones(3, 8)
    assert denoiser.join_texts([None, None]) is None
    assert torch.equal(
        denoiser.join_texts([None, text]), torch.stack([torch.zeros_like(text), text])
    )


def test_the_first_stage_does_not_hear():
    assert not denoiser.draw_batch(One(), denoiser.IDENTITY, 0).speech.any()
    assert denoiser.draw_batch(One(), denoiser.SPEECH, 0).speech.any()


def test_stages_train_what_they_name(tmp_path):
    """The first one all but the audio modules."""
    torch.manual_seed(0)
    networks = Networks.from_nothing(CONFIG)
    nn.init.normal_(networks.denoiser.head.linear.weight)
    before = {name: p.clone() for name, p in networks.named_parameters()}
    stage = replace(denoiser.IDENTITY, settings=Settings(2, 1e-2, 1e-2, average=0.0), batch=2)
    after = denoiser.train(networks, One(), stage, tmp_path)
    changed = {name for name, p in after.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert not any(map(denoiser.is_audio, changed))


def test_networks_from_nothing_predict_nothing():
    networks = Networks.from_nothing(CONFIG).eval()
    batch: Batch = denoiser.draw_batch(One(), replace(denoiser.SPEECH, batch=2), 0)
    assert not networks(batch).any()
    losses = denoiser.losses(networks, batch)
    assert losses["v"].item() == pytest.approx(batch.target.pow(2).mean().item(), rel=1e-3)


def test_lips_weigh_more():
    """Thirty times more at the one latent pixel that is a mouth."""
    speaker = One()
    speaker.example.lips[1, 2] = 1
    batch = denoiser.draw_batch(speaker, replace(denoiser.SPEECH, batch=2), 0)
    squares = batch.target.square()
    mouth = squares[..., 1, 2].mean().item()
    expected = (24 * squares.mean().item() + 30 * mouth) / (24 + 30)
    losses = denoiser.losses(Networks.from_nothing(CONFIG).eval(), batch)
    assert losses["v"].item() == pytest.approx(expected, rel=1e-3)
