"""Animate Portrait: its outputs, its store of segments, and its messages."""

import re
import sys
from collections import Counter
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from comfyui import Graph, Out, Parts, build
from PIL import Image
from quick import animator_of, decode_quickly
from test_segments import SEED, core_frames

STEPS = 1


def animated(parts: Parts, steps: int = STEPS, **inputs) -> Out:
    settings = {"steps": steps, "guidance": 3.5, "sampler": "sde-dpm++2m", "seed": SEED}
    return parts.graph(
        "Hallo3AnimatePortrait",
        model=parts.model,
        vae=parts.vae,
        identity=parts.identity,
        speech=parts.speech,
        **settings | inputs,
    )


def test_outputs(host):
    parts = build(seconds=1.96)
    out = animated(parts)
    for index in range(4):
        parts.graph.keep(out[index])
    frames, audio, rate, video = host.run(parts.graph)
    assert (frames - torch.cat(core_frames(host, 1.96, STEPS))).abs().max() < 1e-4
    assert audio["waveform"].shape == (1, 1, 49 * 640)
    assert rate == 25.0
    with av.open(video.get_stream_source()) as container:
        assert container.streams.video[0].frames == 49
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    shown = torch.from_numpy(pictures[48]) / 255
    assert (shown - frames[48]).abs().mean() < 0.1
    assert video.get_dimensions() == (192, 128)


class Server:
    """The part of ComfyUI's server that nodes use. It keeps the texts that nodes show."""

    def __init__(self, prompt: dict):
        self.prompt_queue = SimpleNamespace(currently_running={0: (0, "id", prompt)})
        self.shown: list[tuple[str, str]] = []

    def send_progress_text(self, text: str, node: str) -> None:
        self.shown.append((node, text))


def serve(monkeypatch, parts: Parts) -> Server:
    server = Server(parts.graph.nodes)
    monkeypatch.setattr(sys.modules["server"].PromptServer, "instance", server, raising=False)
    return server


def test_connecting_something_later_samples_nothing_again(host, quick_decoding, calls, monkeypatch):
    """First the frames are connected, then another soundtrack."""
    parts = build(seconds=2.5)
    out = animated(parts)
    parts.graph.keep(out[3])
    serve(monkeypatch, parts)
    host.run(parts.graph)
    assert calls == {"sampled": 4, "decoded": 2}
    parts.graph.keep(out[0])
    *_, frames = host.run(parts.graph)
    assert frames.shape == (63, 128, 192, 3)
    assert calls == {"sampled": 4, "decoded": 4}
    soundtrack = parts.graph("NoiseAudio", seconds=1)
    parts.graph.nodes[out.link[0]]["inputs"]["soundtrack"] = soundtrack.link
    host.run(parts.graph)
    assert calls["sampled"] == 4


def test_frames_and_video_together_are_decoded_once(host, quick_decoding, calls):
    parts = build(seconds=2.5)
    out = animated(parts)
    parts.graph.keep(out[0])
    parts.graph.keep(out[3])
    frames, _ = host.run(parts.graph)
    assert frames.shape == (63, 128, 192, 3)
    assert calls == {"sampled": 4, "decoded": 2}


def test_the_time_left_is_shown_on_the_node(host, quick_decoding, monkeypatch):
    """From the second step on, for all segments together. The last text says that it is done."""
    parts = build(seconds=2.5)
    out = animated(parts, steps=3, sampler="few")
    parts.graph.keep(out[3])
    server = serve(monkeypatch, parts)
    host.run(parts.graph)
    nodes, texts = zip(*server.shown, strict=True)
    assert set(nodes) == {out.link[0]}
    assert [re.sub(r"\d+:\d\d", "T", text) for text in texts] == [
        *["segment 1 of 2: sampling, T left"] * 2,
        "segment 1 of 2: decoding",
        *["segment 2 of 2: sampling, T left"] * 3,
        "segment 2 of 2: decoding",
        "done in T",
    ]
    server.shown.clear()
    parts.graph.keep(out[0])
    host.run(parts.graph)
    assert server.shown[-1][1].endswith("; 2 of 2 segments were kept from an earlier run")


def test_the_bar_of_the_node_grows_evenly(host, quick_decoding):
    """Each finished segment is shown."""
    parts = build(seconds=4)
    out = animated(parts, steps=2)
    parts.graph.keep(out[3])
    progress = []
    hook = sys.modules["comfy.utils"].set_progress_bar_global_hook
    pictures = []

    def watch(value, total, preview, node_id=None):
        progress.append((value, total))
        pictures.append(preview and preview[1].size)

    hook(watch)
    host.run(parts.graph)
    hook(None)
    assert progress == [(step, 6) for step in (1, 2, 2, 3, 4, 4, 5, 6, 6)]
    assert pictures == [None, None, (192, 128)] * 3


def test_another_seed_for_one_segment(host, quick_decoding, calls):
    """The other segments come from the disk. What follows stays if that is asked for."""
    parts = build(seconds=5)
    out = animated(parts)
    parts.graph.keep(out[0])
    (whole,) = host.run(parts.graph)
    calls.clear()
    for following, sampled in (("stays", 1), ("again", 2)):
        parts = build(seconds=5)
        out = animated(parts, segment_seeds="1:77", following=following)
        parts.graph.keep(out[0])
        (frames,) = host.run(parts.graph)
        same = (frames == whole).flatten(1).all(dim=1)
        assert same[:47].all()
        assert not same[47:90].any()
        assert same[94:].all() == (following == "stays")
        assert calls["sampled"] == 2 * sampled
        calls.clear()


def test_a_part_of_the_clip(host, quick_decoding, calls):
    parts = build(seconds=5)
    parts.graph.keep(animated(parts)[0])
    (whole,) = host.run(parts.graph)
    calls.clear()
    parts = build(seconds=5)
    out = animated(parts, start=2.0, end=3.0, codec="lossless")
    for output in (0, 1, 3):
        parts.graph.keep(out[output])
    frames, audio, video = host.run(parts.graph)
    assert calls["sampled"] == 0
    assert torch.equal(frames, whole[50:75])
    assert audio["waveform"].shape[-1] == 25 * 640
    shown = video.get_components().images
    assert torch.equal((shown * 255).round(), (frames * 255).round())
    for what in ("ProRes 422 HQ", "a PNG for each frame, and a WAV"):
        parts.graph("Hallo3ExportVideo", video=out[3], filename_prefix="x/a", format=what)
    host.run(parts.graph)
    written = host.base / "output" / "x"
    (last,) = written.glob("a_*_00024.png")
    assert torch.equal(torch.from_numpy(np.array(Image.open(last))) / 255, shown[24])
    (film,) = written.glob("a_*.mov")
    with av.open(film) as container:
        assert container.streams.video[0].frames == 25
        assert len(container.streams.audio) == 1
    (heard,) = written.glob("a_*.wav")
    assert heard.stat().st_size == 44 + 2 * 25 * 640


@pytest.mark.parametrize("cache", ["RAM_PRESSURE", "CLASSIC", "LRU", "NONE"])
def test_a_stopped_job_goes_on_where_it_was(
    host, quick_decoding, calls, uninterrupted, monkeypatch, cache
):
    """It is interrupted in the second of three segments, and queued again."""
    graph, expected = uninterrupted
    host.use_cache(cache)
    interrupt_in(host, monkeypatch, index=1)
    with pytest.raises(InterruptedError):
        host.run(graph)
    (unfinished,) = (host.base / "output").glob("hallo3_unfinished_*.mp4")
    with av.open(unfinished) as container:
        assert container.streams.video[0].frames == 47
    (frames,) = host.run(graph)
    assert not unfinished.exists()
    host.use_cache("RAM_PRESSURE")
    assert calls["sampled"] == 2 * 3
    assert torch.equal(frames, expected)


@pytest.fixture(scope="module")
def uninterrupted(host) -> tuple[Graph, torch.Tensor]:
    """A graph of three segments, and its frames, which are decoded quickly."""
    parts = build(seconds=3.8, seed=9)
    parts.graph.keep(animated(parts)[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALLO3_STORE_GB", "0")
        decode_quickly(host, patch, Counter())
        (frames,) = host.run(parts.graph)
    return parts.graph, frames


def interrupt_in(host, monkeypatch, index: int) -> None:
    """Press Cancel once, when this segment begins."""
    animator = animator_of(host)
    sample = animator.sample
    pressed = []

    def press_and_sample(self, at: int, motion: torch.Tensor, seed: int | None):
        if at == index and not pressed:
            pressed.append(at)
            host.nodes.interrupt_processing()
        return sample(self, at, motion, seed)

    monkeypatch.setattr(animator, "sample", press_and_sample)
