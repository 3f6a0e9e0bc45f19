"""A denoiser learns to do at strength 1 what it did at a larger `speech_strength`."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.portrait.framing import filling
from hallo3_core.speech.dialogue import Dialogue, Speaker, voices
from hallo3_core.speech.encode import Speech
from training import stronger
from training.denoiser import batch_of
from training.distill import conditioned
from training.loop import Settings
from training.networks import Batch, Networks
from training_data import CONFIG, One, example

SILENCE = torch.randn(12, 768, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def networks() -> Networks:
    torch.manual_seed(0)
    return Networks(Denoiser(CONFIG), ReferenceNetwork(CONFIG), AudioProjector(CONFIG))


def heard(speech: Tensor) -> Batch:
    """A batch of one example with this speech."""
    shown = replace(example(), speech=speech)
    noise = torch.randn(1, 16, 13, 4, 6, generator=torch.Generator().manual_seed(5))
    return batch_of([shown], noise, torch.full((1,), 749), noise)


def two() -> Tensor:
    """The speech of two people."""
    return torch.randn(2, 49, 5, 12, 768, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("speech", [two()[0], two()], ids=["one", "two"])
def test_at_strength_1_it_predicts_what_it_always_does(networks, speech):
    batch = heard(speech)
    found = stronger.predict(networks, batch, SILENCE, 1.0)
    own = conditioned(networks, batch)(batch.latents, torch.tensor(749))
    assert (found - own).abs().max() < 1e-4


def test_at_another_strength_it_hears_what_a_dialogue_of_that_strength_does(networks):
    """The windows of two speakers, left and right, and of silence, and their weights."""
    features, half = torch.randn(2, 49, 12, 768), torch.zeros(32, 48)
    half[:, :16] = 1  # one of three columns of tokens, as in `columns`
    speakers = tuple(
        Speaker(Speech(each, 47, silence=SILENCE), region)
        for each, region in zip(features, (half, 1 - half), strict=True)
    )
    place = SimpleNamespace(framing=filling((32, 48)))
    sampled = voices(Dialogue(speakers), 0, place, CONFIG, strength=1.5)
    batch, given = heard(sampled.windows[:2]), []

    def conditions(_, features, voices):
        given.extend(voices)
        return networks_conditions(batch, features, voices)

    networks_conditions = networks.conditions
    networks.conditions = conditions
    stronger.predict(networks, batch, SILENCE, 1.5)
    tokens, weights = given
    assert torch.allclose(weights, sampled.weights.expand_as(weights))
    with stronger.mixed_precision(), torch.no_grad():
        assert torch.equal(tokens, networks.audio_projector(sampled.windows))


def test_training_changes_the_denoiser_only(networks, tmp_path, monkeypatch):
    settings = Settings(steps=4, rate=1e-3, warmup=1)
    monkeypatch.setattr(stronger, "STRONGER", replace(stronger.STRONGER, settings=settings))
    monkeypatch.setattr("training.loop.LOG_STEPS", 1)
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    made = stronger.train(networks, People(), SILENCE, tmp_path)
    rows = (tmp_path / "stronger" / "losses.jsonl").read_text().splitlines()
    assert len(rows) == 4
    assert all(np.isfinite(json.loads(row)["v"]) for row in rows)
    changed = {n.split(".")[0] for n, v in made.state_dict().items() if not v.equal(before[n])}
    assert changed == {"denoiser"}


class People(One):
    """Single people, all alike."""

    files = ()


def test_in_a_third_of_the_pairs_one_of_the_two_is_silent():
    speech = two().expand(300, 2, 49, 5, 12, 768)[..., :1]
    batch = replace(heard(two()), speech=speech)
    changed = stronger.with_listeners(batch, SILENCE[:, :1], np.random.default_rng(0))
    silent = (changed.speech == SILENCE[:, :1]).flatten(2).all(dim=2)
    assert silent.sum(1).max() == 1
    assert 75 < silent.sum() < 125
    assert silent.sum(0).min() > 30
