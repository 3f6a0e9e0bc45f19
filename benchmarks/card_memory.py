"""Compares the memory plan with the memory of a card: `python -m benchmarks.card_memory`.

A model with random weights makes a segment, as in `full_size`, but with real tensors, on a card
that counts its memory. The model is four to six times narrower than the released one. So its
tensors are still much larger than the small constant ones. The card is a pretended one
(tests/pretended), or the one that `--device` names. The script prints a table in Markdown.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hallo3_core.autoencoder import vae
from hallo3_core.memory.plan import GB, RESERVED, MemoryPlan
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.config import SAMPLE_RATE, Hallo3Config
from tests.pretended import npu

from .full_size import (
    KINDS,
    LONGEST_SPEECH,
    Way,
    all_networks,
    in_words,
    make_model,
    make_segment,
    plan_of,
    stages_noted,
    without_weights,
)

CONFIG = Hallo3Config(
    layers=4, heads=8, latent_height=16, latent_width=24, audio_tokens=8, audio_width=256
)
VAE = vae.RELEASED | {"block_out_channels": (32, 64, 64, 128)}
MB = 2**20
SHORT_SPEECH = 2 * SAMPLE_RATE


class MeasuredCard:
    """A card, and its peak bytes in each stage, without the bytes used before."""

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


def fill(*networks: nn.Module) -> None:
    """Give random weights to networks without weights, for inference."""
    generator = torch.Generator().manual_seed(0)
    for network in networks:
        weights = {
            name: torch.randn(value.shape, generator=generator).mul_(0.02).to(value.dtype)
            for name, value in network.state_dict().items()
        }
        network.load_state_dict(weights, assign=True)
        network.eval().requires_grad_(False)


@torch.no_grad()
def measure(
    model: Hallo3, plan: MemoryPlan, device: torch.device, samples: int = SHORT_SPEECH
) -> dict[str, int]:
    """The peak bytes on the card in each stage of a segment and of the work before it."""
    fill(*all_networks(model))
    card = MeasuredCard(device)
    with stages_noted(card, model):
        make_segment(card, model.placed(device, plan), samples)
    return card.stages


def small_card(model: Hallo3, kind: str, rows: int) -> float:
    """The GB of a card on which half of the denoiser's layers must be streamed."""
    plan = plan_of(model, kind, Way(in_turn=True, rows=rows))
    stage = next(stage for stage in plan.stages if stage.name == "sampling")
    return (stage.alone - model.config.layers / 2 * stage.layer.matrices + RESERVED) / GB


def ways(model: Hallo3, kind: str) -> Iterator[tuple[Way, int]]:
    """How the networks share the card, and how many samples of speech are encoded.

    The longest speech takes a minute, so it is encoded only once. fp8 layers are not streamed: a
    card that needs this would be too small to decode.
    """
    if kind == "bf16":
        yield Way(in_turn=False, rows=1), SHORT_SPEECH
        yield Way(in_turn=False, rows=2), SHORT_SPEECH
        yield Way(in_turn=True, rows=2), SHORT_SPEECH
        yield Way(in_turn=True, rows=2, card=small_card(model, kind, 2)), SHORT_SPEECH
    yield Way(in_turn=True, rows=1), LONGEST_SPEECH if kind == "fp32" else SHORT_SPEECH
    if kind != "fp8":
        yield Way(in_turn=True, rows=1, card=small_card(model, kind, 1)), SHORT_SPEECH


def table_lines(kind: str, device: torch.device) -> Iterator[str]:
    """The lines of the table. A way of a stage is listed only once."""
    told = set()
    model = make_model(CONFIG, kind, VAE)
    for way, samples in ways(model, kind):
        plan = plan_of(model, kind, way)
        found = measure(make_model(CONFIG, kind, VAE), plan, device, samples)
        for stage in plan.stages:
            key = stage.name, in_words(plan, stage)
            if key in told or (stage.name == "speech" and samples < LONGEST_SPEECH):
                continue
            told.add(key)
            planned, measured = plan.peak(stage), found[stage.name]
            sizes = f"{planned / MB:.0f} | {measured / MB:.0f}"
            ratios = f"{planned / measured:.3f} | {without_weights(plan, stage, measured):.3f}"
            yield f"| {stage.name} | {key[1]} | {kind} | {sizes} | {ratios} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default=npu.NAME, help="(default: a pretended card)")
    parser.add_argument("--dtype", choices=KINDS, nargs="+", default=KINDS, help="of the weights")
    options = parser.parse_args()
    if options.device == npu.NAME:
        npu.install()
    print("| stage | way | weights | plan, MB | measured, MB | ratio | without weights |")
    print("|---|---|---|---|---|---|---|")
    for kind in options.dtype:
        for line in table_lines(kind, torch.device(options.device, 0)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
