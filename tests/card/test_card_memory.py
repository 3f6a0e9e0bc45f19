"""The memory that sampling and decoding need on a card, compared with the plan."""

from dataclasses import replace

import npu
import pytest
import torch
from npu import CARD
from torch import nn

from benchmarks.card_memory import CONFIG, VAE, MeasuredCard, fill
from benchmarks.full_size import (
    Way,
    all_networks,
    animator_of,
    make_model,
    plan_of,
    stages_noted,
    without_weights,
)
from hallo3_core.autoencoder.images import decode_images
from hallo3_core.memory.need import decoding_bytes
from hallo3_core.network.config import FPS, LATENT_FRAMES, SEGMENT_FRAMES
from hallo3_core.portrait.encode import Identity
from hallo3_core.portrait.framing import filling
from hallo3_core.speech.encode import Speech
from small_model import changed

SMALL = replace(CONFIG, layers=2, latent_height=12, latent_width=18)
NARROW = VAE | {"block_out_channels": (16, 32, 32, 64), "norm_num_groups": 8}
TWO_CHUNKS = 17
"""Frames. The second chunk needs the end of the first, so it is the peak without tiles."""


def random_latents(height: int, width: int) -> torch.Tensor:
    shape = 1, SMALL.latent_channels, LATENT_FRAMES, height, width
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rows", "streamed"), [(1, 1), (2, 0)])
def test_sampling_takes_what_is_planned(rows, streamed):
    """The networks of the model take turns. Portrait and speech are not encoded here."""
    model = replace(make_model(SMALL, "bf16", NARROW), speech_encoder=nn.Identity())
    fill(*all_networks(model))
    motion = random_latents(SMALL.latent_height, SMALL.latent_width)
    features = [torch.zeros(1, SMALL.frame_tokens, SMALL.width)] * SMALL.layers
    face, portrait = torch.zeros(1, SMALL.face_channels), torch.zeros(1, 3, *SMALL.canvas)
    identity = Identity(portrait, motion, face, features, filling(SMALL.canvas))
    speech = Speech(torch.zeros(2 * FPS, 12, SMALL.audio_channels), frames=FPS)
    plan = changed(plan_of(model, "bf16", Way(in_turn=True, rows=rows)), streamed)
    animator, card = animator_of(model.placed(CARD, plan), identity, speech), MeasuredCard(CARD)
    with stages_noted(card, model):
        animator.sample(0, identity.motion)
    stage = next(stage for stage in plan.stages if stage.name == "sampling")
    assert 0.95 < plan.peak(stage) / card.stages["sampling"] < 1.15
    assert 0.95 < without_weights(plan, stage, card.stages["sampling"]) < 1.15


@torch.no_grad()
@pytest.mark.parametrize(("tiles", "frames"), [(1, TWO_CHUNKS), (2, SEGMENT_FRAMES)])
def test_decoding_takes_what_is_planned(tiles, frames):
    """In tiles, all frames are on the card at the end."""
    model = make_model(SMALL, "bf16", NARROW)
    fill(model.vae)
    nn.Module.to(model.vae, CARD)
    with npu.peak() as taken:
        decode_images(model.vae, random_latents(8, 12), frames, tiles)
    planned = decoding_bytes(16, 8, 12, size=2, tiles=tiles)
    assert 0.95 < planned / taken.bytes < 1.15
