"""What the memory plan says, and what a card had to hold: `python -m benchmarks.card_memory`.

A model of random weights makes a segment, as in `full_size`, but with numbers in its tensors, on a
card that counts its memory. It is a quarter to a sixth as wide as the released one, which leaves
tensors large enough to rule over what is small and constant. The card is a pretended one
(tests/pretended), or the one that `--device` names. Prints a table in Markdown.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from hallo3_core import vae
from hallo3_core.conditioning import AudioProjector
from hallo3_core.config import SAMPLE_RATE, Hallo3Config
from hallo3_core.memory_plan import GB, RESERVED, MemoryPlan
from hallo3_core.model import Hallo3
from hallo3_core.transformer import Denoiser, ReferenceNetwork

from .full_size import (
    Way,
    keep_in_fp8,
    make_segment,
    plan_of,
    stages_noted,
)

CONFIG = Hallo3Config(
    layers=6, heads=8, latent_height=16, latent_width=24, audio_tokens=8, audio_width=256
)
VAE = vae.RELEASED | {"block_out_channels": (32, 64, 64, 128)}
DTYPES = {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "fp32": torch.float32}
MB = 2**20
SHORT_SPEECH = 2 * SAMPLE_RATE


class MeasuredCard:
    """A card, and the most bytes on it in each stage beside what was there before."""

    def __init__(self, device: torch.device):
        self.device, self.backend = device, torch.get_device_module(device)
        self.before = self.backend.memory_allocated(device)
        self.stages: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.backend.reset_peak_memory_stats(self.device)
        yield
        peak = self.backend.max_memory_allocated(self.device) - self.before
        self.stages[name] = max(peak, self.stages.get(name, 0))


def make_model(config: Hallo3Config, kind: str) -> Hallo3:
    """Networks of random weights of a kind."""
    torch.manual_seed(0)
    networks = (
        *(network(config) for network in (Denoiser, ReferenceNetwork, AudioProjector)),
        vae.autoencoder(**VAE),
    )
    speech_encoder = Wav2Vec2Model(Wav2Vec2Config())
    for network in networks:
        nn.Module.to(network, DTYPES[kind])
        if kind == "fp8":
            keep_in_fp8(network)
    for network in (*networks, speech_encoder):
        network.eval().requires_grad_(False)
    return Hallo3(*networks, speech_encoder, lambda: None)


@torch.no_grad()
def measure(
    model: Hallo3, plan: MemoryPlan, device: torch.device, samples: int = SHORT_SPEECH
) -> dict[str, int]:
    """The most bytes on the card in each stage of a segment and of what comes before it."""
    card = MeasuredCard(device)
    with stages_noted(card, model):
        make_segment(card, model.placed(device, plan), samples)
    return card.stages


def small_card(model: Hallo3, kind: str, rows: int) -> float:
    """GB of a card that lacks the room for half of the denoiser's layers."""
    plan = plan_of(model, kind, Way(in_turn=True, rows=rows))
    stage = next(stage for stage in plan.stages if stage.name == "sampling")
    return (stage.alone - model.config.layers / 2 * stage.layer.matrices + RESERVED) / GB
