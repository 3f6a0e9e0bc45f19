"""Memory runs out in each stage of ComfyUI: the error, what is kept, and the second try."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import npu
import pytest
import torch
from comfyui import Graph, Host, HostError, build

from benchmarks.sizes import make_small_model

SECONDS = 1.96
"""Two segments: 47 frames and 2 frames."""
PART = int(1.1 * 2**30)
"""Bytes of a card on which ComfyUI leaves no memory for weights."""

SMALLER = "use quantised weights or start ComfyUI with --lowvram"
ON_CPU = "or start ComfyUI with --cpu-vae"
PORTRAIT = f"encode the portrait: close other programs, use quantised weights {ON_CPU}"
SPEECH = f"encode the speech: close other programs, {SMALLER}"
PREPARED = f"prepare the speech of a segment: close other programs, {SMALLER}"
SAMPLED = f"sample a segment: close other programs, {SMALLER}"
DECODED = f"decode a segment: close other programs, {ON_CPU}"
MOTION = f"encode the motion frames: close other programs, {ON_CPU}"
ENCODER, DECODER, DENOISER = "CogVideoXEncoder3D", "CogVideoXDecoder3D", "HostDenoiser"


@dataclass(frozen=True)
class Case:
    """A node that runs out of memory when it calls a network, and its error.

    If `finished`, Animate Portrait has finished its first segment by then. `again` is the number of
    denoiser calls of its second try.
    """

    node: str
    network: str
    sentence: str
    finished: bool = False
    again: int | None = None


CASES = (
    Case("identity", ENCODER, PORTRAIT),
    Case("identity", "ReferenceNetwork", PORTRAIT),
    Case("speech", "Wav2Vec2FeatureEncoder", SPEECH),
    Case("segment", "AudioProjector", PREPARED),
    Case("segment", DENOISER, SAMPLED),
    Case("ksampler", DENOISER, SAMPLED),
    Case("animate", DENOISER, SAMPLED, finished=True, again=1),
    Case("decode", DECODER, DECODED),
    Case("stock decode", DECODER, DECODED),
    Case("animate", DECODER, DECODED, finished=True, again=0),
    Case("motion", ENCODER, MOTION),
    Case("animate", ENCODER, MOTION, again=1),
)


@pytest.fixture(scope="module")
def names(host: Host) -> dict[str, str]:
    """A model of random weights. Results of nodes are kept for the next test."""
    torch.manual_seed(0)
    host.use_cache("CLASSIC")
    return make_small_model(host.base / "models")


def graph_to(node: str, seed: int, names: dict[str, str]) -> Graph:
    """A graph of all nodes. Only what `node` needs is run. `seed` is the seed of that node."""
    seconds = SECONDS + (node == "speech") * seed / 1000
    parts = build(seconds, seed if node == "identity" else 5, **names)
    graph, seeded = parts.graph, {"seed": seed}
    person = {"model": parts.model, "identity": parts.identity, "speech": parts.speech}
    pictures = {"vae": parts.vae, "identity": parts.identity}
    settings = person | {"steps": 1, "guidance": 1.0, "sampler": "ddim"}
    sampled = graph("Hallo3SampleSegment", segment_index=0, seed=5, **settings)
    latent = graph("LatentMultiply", samples=sampled, multiplier=1 + seed / 1000)
    steered = graph("Hallo3SegmentConditioning", segment_index=0, **person)
    conditioning = {"positive": steered[0], "negative": steered[1], "latent_image": steered[2]}
    stock = {"steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    frames = graph("Hallo3DecodeVAE", latent=sampled, **pictures)[1]
    nodes = {
        "identity": parts.identity,
        "speech": parts.speech,
        "segment": graph("Hallo3SampleSegment", segment_index=1, **settings, **seeded),
        "ksampler": graph("KSampler", model=parts.model, **conditioning, **stock, **seeded),
        "decode": graph("Hallo3DecodeVAE", latent=latent, **pictures),
        "stock decode": graph("VAEDecode", samples=latent, vae=parts.vae),
        "motion": graph(
            "Hallo3ExtendWithMotionFrames", frames=frames, segment_index=1, **pictures, **seeded
        ),
        "animate": graph("Hallo3AnimatePortrait", vae=parts.vae, **settings, **seeded),
    }
    graph.keep(nodes[node])
    return graph


def layers_of(host: Host) -> ModuleType:
    """The module of the core that this ComfyUI's pack uses."""
    pack = host.nodes.NODE_CLASS_MAPPINGS["Hallo3LoadDiT"].__module__.removesuffix("nodes.loaders")
    return sys.modules[f"{pack}hallo3_core.network.layers"]


@contextmanager
def watched(network: str, full: Callable[[], bool] = lambda: False) -> Iterator[list[bool]]:
    """Record for each call of a `network` whether all its weights were on the card.

    If `full`, another program takes the rest of the card at the call.
    """
    calls = []

    def see(module, inputs):
        if network in {kind.__name__ for kind in type(module).__mro__}:
            calls.append(all(weight.device == npu.CARD for weight in module.parameters()))
            if full():
                npu.accelerator().set_limit(0, torch.npu.memory_allocated() + 4096)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(see)
    try:
        yield calls
    finally:
        hook.remove()


@pytest.mark.parametrize("size", [npu.UNLIMITED, PART], ids=["whole", "part"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.node}-{case.network}")
def test_memory_runs_out_and_comes_back(
    host: Host, names: dict[str, str], tmp_path: Path, case: Case, size: int
):
    graph = graph_to(case.node, 1 + 2 * CASES.index(case) + (size == PART), names)
    store = tmp_path / "segments"

    def full() -> bool:
        return not case.finished or any(store.glob("*.segment"))

    with npu.limited(size), watched(case.network, full) as calls, pytest.raises(HostError) as said:
        host.run(graph)
    sentence = f"There is not enough memory to {case.sentence}. Queue again to go on."
    assert str(said.value) == sentence
    if case.network in ("ReferenceNetwork", DENOISER):
        assert calls[-1] == (size != PART)
    gc.collect()  # as ComfyUI does between prompts
    layers_of(host).rotary_table.cache_clear()  # 5 MB at full size, which are kept on purpose
    assert torch.npu.memory_allocated() == 0
    with npu.limited(size), watched(DENOISER) as calls:
        (result,) = host.run(graph)
    assert result is not None
    assert case.again in (None, len(calls))
