"""A video on a simulated card: each stage needs the memory that the plan says."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from card import META, Card
from denoiser_memory import flash_attention
from hallo3_core.animate import animate
from hallo3_core.autoencoder import vae
from hallo3_core.memory.model_size import Weights
from hallo3_core.memory.placement import Placement
from hallo3_core.memory.plan import GB, MemoryPlan, Work
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.network.weight_formats import FORMATS
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.speech.encode import Speech

BF16 = torch.bfloat16
CONFIG = Hallo3Config(layers=2)
"""Full size, with two layers. All layers of the released model are alike."""
SEGMENT = ["speech", "sampling", "decoding", "motion"]


@pytest.fixture
def model() -> Hallo3:
    with torch.device("meta"):
        networks = (
            *(network(CONFIG, dtype=BF16) for network in (Denoiser, ReferenceNetwork)),
            AudioProjector(CONFIG, dtype=BF16),
            nn.Module.to(vae.autoencoder(**vae.RELEASED), BF16),
        )
        return Hallo3(*networks, nn.Identity(), lambda: None)


def plan_of(model: Hallo3, in_turn: bool, rows: int, streamed: int) -> MemoryPlan:
    weights = Weights.of(CONFIG, model.vae, FORMATS["bf16"], 2)
    plan = Work(CONFIG, model.vae, weights, FORMATS["bf16"], 2, listening=False).plan(
        in_turn, rows, 100 * GB
    )
    stages = (replace(stage, streamed=streamed if stage.layer else 0) for stage in plan.stages)
    return replace(plan, stages=tuple(stages))


@pytest.mark.parametrize(
    ("in_turn", "rows", "streamed"), [(False, 2, 0), (True, 1, 1), (True, 2, 2)]
)
@torch.no_grad()
def test_every_stage_takes_what_is_planned(model, in_turn, rows, streamed, monkeypatch):
    plan = plan_of(model, in_turn, rows, streamed)
    card = Card(model.denoiser, model.reference_network, model.audio_projector, model.vae)
    working = Placement.working
    stages = iter(["portrait", "speech", "keys", *SEGMENT, *SEGMENT])

    @contextmanager
    def watched(self, *networks):
        with card.stage(next(stages)), working(self, *networks):
            yield

    monkeypatch.setattr(Placement, "working", watched)
    monkeypatch.setattr(F, "scaled_dot_product_attention", flash_attention)
    noise, picture = SeededNoise(0), torch.zeros(3, *CONFIG.canvas)
    with card:
        model = model.placed(META, plan)
        with model.working(model.vae, model.reference_network):
            identity = encode_portrait(model.vae, model.reference_network, picture, None, noise)
        speech = Speech(torch.zeros(98, 12, CONFIG.audio_channels), frames=90)
        segments = list(animate(model, identity, speech, noise, steps=3))
    resting = 0 if in_turn else plan.weights.total
    for stage in plan.stages:
        assert 1 <= (plan.peak(stage) - resting) / card.stages[stage.name] < 1.3, stage.name
    assert card.stages["keys"] < card.stages["sampling"]
    assert [len(segment.frames) for segment in segments] == [47, 43]
    assert {segment.frames.device.type for segment in segments} == {"cpu"}
