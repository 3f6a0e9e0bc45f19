"""Animate Portrait: expansion, caching, the video file."""

import importlib
import inspect
import re
import sys
from types import SimpleNamespace

import av
import pytest
import torch
from comfyui import Out, Parts, build
from test_segments import SEED, core_frames

STEPS = 1


def animated(parts: Parts, steps: int = STEPS, **inputs) -> Out:
    return parts.graph(
        "Hallo3AnimatePortrait",
        model=parts.model,
        vae=parts.vae,
        identity=parts.identity,
        speech=parts.speech,
        steps=steps,
        guidance=3.5,
        sampler="sde-dpm++2m",
        seed=SEED,
        **inputs,
    )


def test_outputs(host):
    parts = build(seconds=2.5)
    out = animated(parts)
    for index in range(4):
        parts.graph.keep(out[index])
    frames, audio, rate, video = host.run(parts.graph)
    assert (frames - torch.cat(core_frames(host, 2.5, STEPS))).abs().max() < 1e-4
    assert audio["waveform"].shape == (1, 1, 63 * 640)
    assert rate == 25.0
    with av.open(video.get_stream_source()) as container:
        assert container.streams.video[0].frames == 63
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    shown = torch.from_numpy(pictures[50]) / 255
    assert (shown - frames[50]).abs().mean() < 0.1
    assert video.get_dimensions() == (192, 128)


def test_frames_are_made_when_they_are_connected(host, quick_decoding, monkeypatch):
    """At first only the video is; connecting the frames later samples nothing again."""
    parts = build(seconds=0.5)
    out = animated(parts)
    parts.graph.keep(out[3])
    running = {0: (0, "id", parts.graph.nodes)}
    server = SimpleNamespace(prompt_queue=SimpleNamespace(currently_running=running))
    monkeypatch.setattr(sys.modules["server"].PromptServer, "instance", server, raising=False)
    host.run(parts.graph, fresh=True)
    assert host.executed("Hallo3StoreSegment")
    assert not host.executed("Hallo3SegmentImages")
    parts.graph.keep(out[0])
    frames = host.run(parts.graph)[-1]
    assert frames.shape == (13, 128, 192, 3)
    assert host.executed("Hallo3SegmentImages")
    assert not host.executed("Hallo3SampleSegment")


@pytest.fixture
def quick_decoding(host, monkeypatch):
    """Pictures that depend on the latents and take no time."""

    def decode(vae, samples: torch.Tensor, frames: int) -> torch.Tensor:
        small = samples[0, :3].movedim(0, -1).sigmoid()
        large = small.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
        return large.repeat_interleave(4, dim=0)[:frames]

    for node in ("Hallo3DecodeVAE", "Hallo3AnimatePortrait"):
        module = inspect.getmodule(host.nodes.NODE_CLASS_MAPPINGS[node])
        monkeypatch.setattr(module, "decode_latent", decode)


def test_the_time_left_is_shown_on_the_node(host, quick_decoding, monkeypatch):
    """From the second step on, for all segments together."""
    shown = []

    class Server:
        prompt_queue = SimpleNamespace(currently_running={})

        def send_progress_text(self, text: str, node: str) -> None:
            shown.append((node, text))

    monkeypatch.setattr(sys.modules["server"].PromptServer, "instance", Server(), raising=False)
    parts = build(seconds=2.5)
    out = animated(parts, steps=3)
    parts.graph.keep(out[3])
    host.run(parts.graph, fresh=True)
    nodes, texts = zip(*shown, strict=True)
    assert set(nodes) == {out.link[0]}
    assert [text.partition(",")[0] for text in texts] == (
        ["segment 1 of 2"] * 2 + ["segment 2 of 2"] * 3
    )
    assert all(re.fullmatch(r".*, \d+:\d\d left", text) for text in texts)


@pytest.mark.parametrize("cache", ["CLASSIC", "LRU", "RAM_PRESSURE"])
def test_a_stopped_job_goes_on_where_it_was(host, quick_decoding, monkeypatch, cache):
    """Interrupted in the third of four segments, in groups of two, and queued again."""
    parts = build(seconds=6.0, seed=9)
    parts.graph.keep(animated(parts)[0])
    (uninterrupted,) = host.run(parts.graph, fresh=True)
    host.use_cache(cache)
    sampled = []
    nodes = host.nodes.NODE_CLASS_MAPPINGS
    monkeypatch.setattr(inspect.getmodule(nodes["Hallo3AnimateSegments"]), "GROUP", 2)
    node = nodes["Hallo3SampleSegment"]
    execute = node.execute.__func__

    def interrupt_third(cls, **inputs):
        sampled.append(inputs["segment_index"])
        if sampled == [0, 1, 2]:
            host.nodes.interrupt_processing()
        return execute(cls, **inputs)

    monkeypatch.setattr(node, "execute", classmethod(interrupt_third))
    with pytest.raises(InterruptedError):
        host.run(parts.graph)
    (frames,) = host.run(parts.graph)
    host.use_cache("CLASSIC")
    assert sampled == [0, 1, 2, 2, 3]
    assert frames.shape == (150, 128, 192, 3)
    assert torch.equal(frames, uninterrupted)


def test_half_an_hour_is_laid_out(host, monkeypatch):
    """Every segment once, in order; ComfyUI's caches look for ancestors by recursion."""
    parts = build(seconds=1)
    nodes = host.nodes.NODE_CLASS_MAPPINGS
    order = []

    def sample(cls, segment_index, **inputs):
        order.append(segment_index)
        return io.NodeOutput(segment_index)

    def store(cls, latent, segment_index, previous=-1, **inputs):
        assert (latent, previous) == (segment_index, segment_index - 1)
        return io.NodeOutput(segment_index, None)

    io = importlib.import_module("comfy_api.latest").io
    monkeypatch.setattr(nodes["Hallo3SampleSegment"], "execute", classmethod(sample))
    monkeypatch.setattr(nodes["Hallo3StoreSegment"], "execute", classmethod(store))
    inputs = {"steps": 1, "guidance": 1.0, "sampler": "ddim", "seed": 0}
    laid_out = parts.graph(
        "Hallo3AnimateSegments",
        model=parts.model,
        vae=parts.vae,
        identity=parts.identity,
        speech=parts.speech,
        first=0,
        count=800,
        **inputs,
    )
    parts.graph.keep(laid_out)
    assert host.run(parts.graph) == [799]
    assert order == list(range(800))
