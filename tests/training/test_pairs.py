"""Two people side by side: their shots, who hears what, the training and the measures."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hallo3_core import builtin
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.portrait.framing import filling
from hallo3_core.speech.dialogue import Dialogue, Speaker, voices
from hallo3_core.speech.encode import Speech
from training import measure_pairs, pairs
from training.denoiser import batch_of
from training.distill import conditioned
from training.examples import Example, Examples, encode
from training.loop import Settings
from training.networks import Batch, Networks, columns
from training.window import Window, conditioned_in, window_on
from training.world.clips import person_of
from training.world.pair import beside, centred, still_pair
from training_data import CONFIG, One, shot

WIDE = replace(CONFIG, latent_height=16, latent_width=24)
"""A canvas of 128 x 192 pixels."""
MOUTH = slice(10, 12), slice(11, 13)


def single(seed: int) -> Example:
    """A person in the middle of the canvas of `WIDE`, of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    video, reference, motion = (
        torch.randn(16, frames, 16, 24, generator=generator) for frames in (13, 1, 1)
    )
    speech = torch.randn(49, 5, 12, 768, generator=generator)
    lips, region = torch.zeros(16, 24), torch.zeros(16, 24)
    lips[MOUTH] = 1
    region[4:14, 8:16] = 1
    return Example(video, reference, motion, speech, torch.zeros(512), region, lips)


class Some(One):
    def __init__(self, *examples: Example):
        self.examples, self.files = examples, []

    def draw(self, generator: np.random.Generator) -> Example:
        return self.examples[generator.integers(len(self.examples))]


def random_networks() -> Networks:
    torch.manual_seed(0)
    return Networks(Denoiser(WIDE), ReferenceNetwork(WIDE), AudioProjector(WIDE))


def batch_of_pairs() -> Batch:
    drawn = [pairs.joined(single(0), single(1)), pairs.joined(single(2), single(3))]
    noise = torch.randn(2, 16, 13, 16, 24, generator=torch.Generator().manual_seed(5))
    return batch_of(drawn, noise, torch.full((2,), 749), noise)


def test_a_shot_has_two_people_with_their_speeches():
    shot = pairs.shot("train", 0, builtin.CONFIG)
    assert shot.frames.shape == (3, 49, 128, 192)
    assert shot.portraits.shape == (2, 3, 128, 192)
    assert torch.equal(shot.portraits[0], shot.frames[:, 0])
    assert shot.waveform.shape == (2, pairs.FRAMES * 640)
    assert not torch.equal(*shot.waveform)
    assert shot.regions.min() == 1
    moved = (shot.frames - shot.frames[:, :1]).abs().amax(dim=(0, 1))
    for half in (slice(None, 96), slice(96, None)):
        lips = shot.lips[:, half]
        assert 0 < lips.mean() < 0.1
        assert moved[:, half][lips > 0].max() > 0.2


def test_in_some_shots_one_of_the_two_is_silent():
    scenes = [pairs.scene("train", i, np.random.default_rng([41, i])) for i in range(24)]
    silent = np.array([[not speech.waveform.any() for speech in s.speeches] for s in scenes])
    assert 4 <= silent.sum() <= 14
    assert silent.sum(axis=0).min() > 0
    shut = np.array([[not mouth.opening.any() for mouth in s.mouths] for s in scenes])
    assert shut[silent].all()
    assert shut[~silent].mean() < 0.2


def test_people_of_the_test_split_are_not_in_the_training():
    made = pairs.scene("train", 0, np.random.default_rng(0))
    keys = {person_of("test", index).key for index in range(200)}
    assert not keys & {person.key for person in made.people}


def test_both_people_have_one_wall_and_the_middles_of_the_halves():
    people = beside(centred(person_of("test", 0)), centred(person_of("test", 1)))
    assert [person.place[0] for person in people] == [-0.375, 0.375]
    assert people[0].wall == people[1].wall
    assert still_pair(people, (64, 96)).shape == (64, 96, 3)


def test_a_stored_pair_has_the_features_of_both_speeches(tmp_path):
    model = builtin.load()
    waveforms = torch.stack([shot().waveform, shot().waveform.flip(0)])

    def stored(waveform: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        rows = encode(
            model.vae, model.speech_encoder, replace(shot(), waveform=waveform), generator
        )
        save_file(rows, tmp_path / "000000.safetensors")
        return Examples(tmp_path, 1).at(0, np.random.default_rng(0)).speech

    both = stored(waveforms)
    assert both.shape == (2, 49, 5, 12, 768)
    assert torch.equal(both[0], stored(waveforms[0]))
    assert torch.equal(both[1], stored(waveforms[1]))


def test_each_half_hears_its_own_voice():
    """With the weights of a dialogue between two speakers, left and right."""
    left = torch.zeros(128, 192)
    left[:, :96] = 1
    speech = Speech(torch.zeros(49, 12, 768), 47, silence=torch.zeros(12, 768))
    dialogue = Dialogue((Speaker(speech, left), Speaker(speech, 1 - left)))
    heard = voices(dialogue, 0, SimpleNamespace(framing=filling((128, 192))), WIDE)
    assert torch.equal(heard.weights, columns(2, WIDE)[:, None].expand(-1, 13, -1))


@torch.no_grad()
def test_what_a_pair_sees_and_hears_is_the_same_in_a_batch():
    """The audio of each pair of a batch, against the network's own for one video."""
    networks, batch = random_networks(), batch_of_pairs()
    found = networks(batch)
    for row, part in enumerate(batch.split(1)):
        features, _ = networks.reference_network(part.reference, text=networks.text_of(part))
        conditions = networks.conditions(part, features)
        tokens = networks.audio_projector(batch.speech[row])
        weights = columns(2, WIDE)[:, None].expand(-1, 13, -1)
        audio = networks.denoiser.audio_keys_values(tokens, weights)
        alone = networks.denoiser(part.latents, part.timesteps, replace(conditions, audio=audio))
        assert (alone[0] - found[row]).abs().max() < 1e-4
    other = replace(batch, speech=batch.speech.flip(1))
    assert (networks(other) - found).abs().max() > 1e-3


@torch.no_grad()
def test_a_window_on_a_pair_hears_what_the_whole_does():
    networks, batch = random_networks(), batch_of_pairs()
    everything = Window(WIDE, torch.zeros(2, 2, dtype=torch.long), torch.arange(3), WIDE.grid)
    timestep = torch.tensor(749)
    whole = conditioned(networks, batch)(batch.latents, timestep)
    found = conditioned_in(networks, batch, everything)(batch.latents, timestep)
    assert (found - whole).abs().max() < 1e-4
    band = window_on(batch.lips, WIDE, np.random.default_rng(0), pairs.BANDS)
    cropped = band.crop(batch.latents)
    assert torch.equal(band.crop(band.spread(cropped)), cropped)
    assert conditioned_in(networks, batch, band)(cropped, timestep).shape == cropped.shape


def test_joined_halves():
    left, right = single(0), single(1)
    both = pairs.joined(left, right)
    assert torch.equal(both.video[..., :12], left.video[..., 6:18])
    assert torch.equal(both.reference[..., 12:], right.reference[..., 6:18])
    assert torch.equal(both.speech[1], right.speech)
    assert both.lips.nonzero()[:, 1].unique().tolist() == [5, 6, 17, 18]


def test_the_training_takes_pairs_and_single_people(tmp_path, monkeypatch):
    settings = Settings(steps=8, rate=1e-3, warmup=1)
    monkeypatch.setattr(pairs, "PAIRS", replace(pairs.PAIRS, settings=settings, batch=2))
    monkeypatch.setattr(pairs, "SINGLES", 2)
    monkeypatch.setattr("training.loop.LOG_STEPS", 1)
    networks = random_networks()
    before = networks.denoiser.head.linear.weight.clone()
    reference = networks.reference_network.embed.position.clone()
    people = Some(single(0), single(1))
    made = pairs.train(networks, people, Some(pairs.joined(single(2), single(3))), tmp_path)
    rows = (tmp_path / "pairs" / "losses.jsonl").read_text().splitlines()
    assert len(rows) == 8
    assert all(np.isfinite(json.loads(row)["v"]) for row in rows)
    assert all(value.isfinite().all() for value in made.state_dict().values())
    assert not torch.equal(before, made.denoiser.head.linear.weight)
    assert torch.equal(reference, made.reference_network.embed.position)


def test_measures_of_mouths_that_do_what_they_should():
    truth = np.random.default_rng(0).random((2, 94))
    assert measure_pairs.follows(0.1 * truth, truth) == pytest.approx([1, 1])
    assert np.abs(measure_pairs.follows(truth, truth[::-1])).max() < 0.3
    found = {"both": truth, "left": truth * [[1], [0.1]], "right": truth * [[0.2], [1]]}
    assert measure_pairs.listeners(found) == pytest.approx([0.2, 0.1])
