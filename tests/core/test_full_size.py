"""One layer of the released model on a simulated card: its memory and its tensors."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.fake_card import CARD, FakeCard
from benchmarks.full_size import Way, animator_of, make_model, on_card, plan_of, without_weights
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network import blocks
from hallo3_core.network.config import FPS, Hallo3Config
from hallo3_core.portrait.encode import Identity
from hallo3_core.portrait.framing import filling
from hallo3_core.speech.encode import Speech

CONFIG = Hallo3Config(layers=1)


def alone(model: Hallo3) -> Hallo3:
    """The model without the networks that are not used in sampling."""
    return replace(model, vae=nn.Identity(), speech_encoder=nn.Identity())


def sample(model: Hallo3) -> Tensor:
    """Sample the latents of a segment, with an identity and a speech of zeros."""
    portrait = torch.zeros(1, 3, *CONFIG.canvas)
    motion = torch.zeros(1, CONFIG.latent_channels, 13, CONFIG.latent_height, CONFIG.latent_width)
    features = [torch.zeros(1, CONFIG.frame_tokens, CONFIG.width)]
    face = torch.zeros(1, CONFIG.face_channels)
    identity = Identity(portrait, motion, face, features, filling(CONFIG.canvas))
    speech = Speech(torch.zeros(2 * FPS, 12, CONFIG.audio_channels), frames=FPS)
    return animator_of(model, identity, speech).sample(0, motion)


@pytest.mark.parametrize(
    ("kind", "rows", "streamed"),
    [("bf16", 2, 0), ("bf16", 1, 1), ("fp8", 1, 0), ("nvfp4", 1, 1), ("asym_w4a8_int8", 1, 0)],
)
def test_sampling_takes_what_is_planned(kind, rows, streamed):
    model = make_model(CONFIG, kind)
    plan = plan_of(model, kind, Way(in_turn=True, rows=rows))
    stages = [replace(stage, streamed=streamed if stage.layer else 0) for stage in plan.stages]
    stage = next(stage for stage in stages if stage.name == "sampling")
    with on_card(alone(model), replace(plan, stages=tuple(stages))) as (card, placed):
        latents = sample(placed)
    counted = card.stages["sampling"]
    assert latents.device == CARD
    assert 0.95 < plan.peak(stage) / counted < 1.15
    assert 0.95 < without_weights(plan, stage, counted) < 1.15


def test_what_is_made_on_no_device_is_found(monkeypatch):
    """A tensor made without a device is on the CPU. On a CPU nobody notices."""
    monkeypatch.setattr(
        blocks, "timestep_embedding", lambda steps, width: torch.zeros(len(steps), width)
    )
    model = make_model(CONFIG, "bf16")
    plan = plan_of(model, "bf16", Way(in_turn=True, rows=1))
    refused = pytest.raises(RuntimeError, match="two different devices")
    with on_card(alone(model), plan) as (_, placed), refused:
        sample(placed)


@torch.no_grad()
def test_a_convolution_of_two_devices_is_refused():
    conv = nn.Conv1d(2, 3, 1)
    with FakeCard(), pytest.raises(RuntimeError, match="two different devices"):
        conv(torch.zeros(1, 2, 5, device=CARD))


def test_bytes_are_counted_while_they_are_alive():
    with FakeCard() as card:
        kept = torch.empty(1000, device=CARD)
        with card.stage("work"):
            more = (kept + 1).view(10, 100)[0]
            torch.empty(5000)
            del more
        with card.stage("after"):
            assert kept.to("cpu").device.type == "cpu"
    assert card.stages == {"work": 8000, "after": 4000}
