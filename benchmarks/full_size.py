"""Compares the memory plan with a video at full size: `python -m benchmarks.full_size`.

The core does the whole job of the released model on a simulated card (`fake_card`), in each way
that the plan knows. The script prints a table in Markdown.
"""

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Protocol
from unittest import mock

import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from hallo3_core.animate import ModelAnimator
from hallo3_core.autoencoder import vae
from hallo3_core.memory.model_size import Weights
from hallo3_core.memory.placement import Placement
from hallo3_core.memory.plan import GB, RESERVED, MemoryPlan, Work, WorkStage
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import FPS, MOTION_FRAMES, SAMPLE_RATE, SEGMENT_FRAMES, Hallo3Config
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.network.weight_formats import FORMATS, quantize_layers
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import Identity, encode_identity
from hallo3_core.speech.encode import LONGEST_PASS, Speech, encode_speech

from .fake_card import CARD, FakeCard, fill

KINDS = ("bf16", "fp8", "fp32")
STEPS = 3
"""After this many steps, a sampler holds all the tensors that it ever holds."""
LONGEST_SPEECH = LONGEST_PASS // SEGMENT_FRAMES * SEGMENT_FRAMES * SAMPLE_RATE // FPS
"""Samples of the longest speech that is encoded in one pass."""


class Card(Protocol):
    def stage(self, name: str) -> AbstractContextManager:
        """Record the peak bytes of a part of the work."""


@dataclass(frozen=True)
class Way:
    """How the networks share a card: all stay, or in turn as on a card of `card` GB."""

    in_turn: bool
    rows: int
    card: float = inf


WAYS = (
    Way(in_turn=False, rows=1),
    Way(in_turn=False, rows=2),
    Way(in_turn=True, rows=1),
    Way(in_turn=True, rows=2),
    Way(in_turn=True, rows=2, card=8),
    Way(in_turn=True, rows=2, card=6),
    Way(in_turn=True, rows=1, card=4),
)


def make_model(config: Hallo3Config, kind: str, sizes: dict = vae.RELEASED) -> Hallo3:
    """Networks for weights of a `kind`, still without weights. `sizes` are the autoencoder's."""
    with torch.device("meta"):
        networks = (
            *(network(config) for network in (Denoiser, ReferenceNetwork, AudioProjector)),
            vae.autoencoder(**sizes),
        )
        for network in networks:
            nn.Module.to(network, FORMATS[kind].dtype)
            quantize_layers(network, FORMATS[kind])
        return Hallo3(*networks, Wav2Vec2Model(Wav2Vec2Config()), lambda: None)


def all_networks(model: Hallo3) -> tuple[nn.Module, ...]:
    transformers = model.denoiser, model.reference_network, model.audio_projector
    return *transformers, model.vae, model.speech_encoder


def plan_of(model: Hallo3, kind: str, way: Way) -> MemoryPlan:
    size = FORMATS[kind].dtype.itemsize
    weights = Weights.of(model.config, model.vae, FORMATS[kind], size)
    work = Work(model.config, model.vae, weights, FORMATS[kind], size, listening=True)
    return work.plan(way.in_turn, way.rows, way.card * GB - RESERVED)


@contextmanager
def stages_noted(card: Card, model: Hallo3) -> Iterator[None]:
    """Record the stages of networks that belong to one stage."""
    stages = {
        model.reference_network: "portrait",
        model.speech_encoder: "speech",
        model.audio_projector: "speech",
        model.denoiser: "sampling",
    }
    working = Placement.working

    @contextmanager
    def watched(self: Placement, *networks: nn.Module) -> Iterator[None]:
        with card.stage(stages.get(networks[-1], "autoencoder")), working(self, *networks):
            yield

    with mock.patch.object(Placement, "working", watched):
        yield


@contextmanager
def on_card(model: Hallo3, plan: MemoryPlan) -> Iterator[tuple[FakeCard, Hallo3]]:
    """A card, and a model placed on it by the plan. The stages of its networks are recorded."""
    with FakeCard() as card, torch.no_grad(), stages_noted(card, model):
        for network in all_networks(model):
            fill(network)
        yield card, model.placed(CARD, plan)


def encode(model: Hallo3, samples: int) -> tuple[Identity, Speech]:
    """Encode a portrait, and a speech of this many samples."""
    picture = torch.zeros(1, 3, *model.config.canvas)
    networks = model.vae, model.reference_network
    with model.working(*networks):
        identity = encode_identity(*networks, picture, picture, SeededNoise(0))
    with model.working(model.speech_encoder):
        return identity, encode_speech(model.speech_encoder, torch.zeros(samples))


def animator_of(model: Hallo3, identity: Identity, speech: Speech) -> ModelAnimator:
    text = torch.zeros(1, model.config.text_tokens, model.config.text_width)
    return ModelAnimator(model, identity, speech, SeededNoise(0), text=text, steps=STEPS)


def make_segment(
    card: Card, model: Hallo3, samples: int = LONGEST_SPEECH, decoded: bool = True
) -> None:
    """Do all the work of one segment, on a card that records the stages.

    If not `decoded`, it ends with the latents.
    """
    identity, speech = encode(model, samples)
    animator = animator_of(model, identity, speech)
    latents = animator.sample(0, identity.motion)
    if decoded:
        with card.stage("decoding"):
            canvas = animator.decode(0, latents, SEGMENT_FRAMES)
        with card.stage("motion"):
            animator.extend(1, canvas[-MOTION_FRAMES:])


def count(model: Hallo3, plan: MemoryPlan, decoded: bool = True) -> dict[str, int]:
    """The peak bytes on the card in each stage of a segment and of the work before it."""
    with on_card(model, plan) as (card, placed):
        make_segment(card, placed, decoded=decoded)
    return card.stages


def without_weights(plan: MemoryPlan, stage: WorkStage, counted: float) -> float:
    """The planned bytes divided by the counted bytes, without the weights on the card."""
    work = stage.work + (0 if plan.in_turn else stage.kept)
    return work / (counted - (plan.peak(stage) - work))


def in_words(plan: MemoryPlan, stage: WorkStage) -> str:
    """The way of a stage, in words."""
    words = ["in turn" if plan.in_turn else "all stay"]
    if stage.streamed:
        words.append(f"{stage.streamed} layers one by one")
    if stage.name == "sampling":
        words.append("both branches at once" if plan.rows == 2 else "one branch")
    if stage.name == "decoding":
        words.append("whole" if plan.tiles == 1 else f"{plan.tiles} x {plan.tiles} tiles")
    return ", ".join(words)


def rows_of(config: Hallo3Config, kind: str) -> Iterator[tuple[str, str]]:
    """The stages and the lines of the table. A way of a stage is listed only once."""
    told = set()
    for way in WAYS:
        model = make_model(config, kind)
        plan = plan_of(model, kind, way)
        new = {(stage.name, in_words(plan, stage)): stage for stage in plan.stages}
        new = {key: stage for key, stage in new.items() if key not in told}
        told.update(new)
        found = count(model, plan, decoded=any(name == "decoding" for name, _ in new))
        for (name, words), stage in new.items():
            planned, counted = plan.peak(stage), found[name]
            ratios = f"{planned / counted:.3f} | {without_weights(plan, stage, counted):.3f}"
            sizes = f"{planned / GB:.2f} | {counted / GB:.2f}"
            yield name, f"| {name} | {words} | {kind} | {sizes} | {ratios} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = [row for kind in ("bf16", "fp8") for row in rows_of(Hallo3Config(), kind)]
    print("| stage | way | weights | plan, GB | counted, GB | ratio | without weights |")
    print("|---|---|---|---|---|---|---|")
    for stage in ("portrait", "speech", "sampling", "decoding", "motion"):
        print(*(line for name, line in rows if name == stage), sep="\n")


if __name__ == "__main__":
    main()
