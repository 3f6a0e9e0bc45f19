"""Training on a window of the picture."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.layers import rotary_table
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from training import denoiser
from training.networks import Networks
from training.window import Window, predict, window_on
from training_data import SETTINGS, WIDE, One, batch_with_mouths, mouths


@torch.no_grad()
def test_a_window_of_everything_is_the_whole():
    torch.manual_seed(0)
    networks = Networks(Denoiser(WIDE), ReferenceNetwork(WIDE), AudioProjector(WIDE))
    batch = batch_with_mouths(networks)
    everything = Window(WIDE, torch.zeros(2, 2, dtype=torch.long), torch.arange(3), WIDE.grid)
    whole = networks(batch)
    assert whole.std() > 0.1
    assert (predict(networks, batch, everything) - whole).abs().max() < 1e-5


@torch.no_grad()
def test_tokens_of_a_window_are_at_their_places():
    """Without what layers add, a token knows nothing but its own place and latents."""
    networks = Networks.from_nothing(WIDE)
    nn.init.normal_(networks.denoiser.head.linear.weight)
    batch = batch_with_mouths(networks)
    window = window_on(batch.lips, WIDE, np.random.default_rng(0))
    assert len(window.text) == 1
    assert window.corners[0].tolist() != window.corners[1].tolist()
    found, whole = predict(networks, batch, window), networks(batch)
    assert found.shape == (2, 16, 13, 8, 12)
    assert (found - window.crop(whole)).abs().max() < 1e-5
    table = rotary_table(WIDE, 13, torch.device("cpu")).turns[3:]
    row, column = window.corners[1].tolist()
    second = table[54 + (row + 1) * 9 + column]
    assert torch.equal(window.tokens.rotary.turns[1, 0, 1 + 24 + 6], second)


def test_windows_hold_the_mouth():
    """Wherever they are, and one that is wider in the middle of it."""
    lips, corners = mouths(), set()
    for seed in range(30):
        window = window_on(lips, WIDE, np.random.default_rng(seed))
        seen = window.crop(lips[:, None, None])
        assert torch.equal(seen.sum((1, 2, 3, 4)), lips.sum((1, 2)))
        corners.add(tuple(window.corners[1].tolist()))
    assert corners == {(0, 3), (1, 3), (2, 3)}
    lips[0, 5, 1:17] = 1
    assert window_on(lips, WIDE, np.random.default_rng(0)).corners[0, 1] == 1


def test_a_stage_sees_windows_at_first_but_for_every_eighth_step(tmp_path):
    stage = replace(denoiser.SPEECH, windows=0.5, settings=replace(SETTINGS, steps=40))
    whole = [step for step in range(40) if not stage.sees_window(step)]
    assert whole == [7, 15, *range(20, 40)]
    networks = Networks.from_nothing(WIDE)
    speaker = One()
    video, reference, motion = (torch.randn(16, f, 12, 18) for f in (13, 1, 1))
    speaker.example = replace(
        speaker.example,
        video=video,
        reference=reference,
        motion=motion,
        region=torch.ones(12, 18),
        lips=mouths()[0],
    )
    denoiser.train(networks, speaker, replace(stage, batch=1, settings=SETTINGS), tmp_path)
    assert networks.denoiser.head.linear.weight.any()
