"""Memory runs out in every part of the work, in every way in which networks share the card."""

import gc
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from unittest import mock

import npu
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from transformers import Wav2Vec2Model

from hallo3_core import cli as command_line
from hallo3_core.animate import ModelAnimator
from hallo3_core.cli import animate as animate_command
from hallo3_core.media.picture import save_picture
from hallo3_core.media.video import read_frames, save_sound
from hallo3_core.memory.model_size import Weights
from hallo3_core.memory.placement import Placement
from hallo3_core.memory.plan import MemoryPlan, Work
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import NEW_FRAMES, SAMPLE_RATE
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.network.weight_formats import FORMATS

SECONDS = 2
"""Seconds of speech: two segments."""
SHARE = 0.2
"""The share of a network's memory that is free. Decoding in the smallest tiles needs more."""
WAYS = {"all stay": (False, 0), "in turn": (True, 0), "streamed": (True, 1)}
"""Whether networks take turns, and how many layers are streamed."""


@dataclass(frozen=True)
class Part:
    """The part of the work that runs out of memory in a start.

    The parts fail one after the other, each in its own start. Memory runs out when the `network`
    starts to work for the `times`-th time. By then, the start has sampled the segments `sampled`.
    It leaves a video of `frames`.
    """

    complaint: str
    network: type[nn.Module]
    times: int = 1
    sampled: tuple[int, ...] = ()
    frames: int = 0


GO_ON = r".* Start again to continue\. The finished part is in \S+/video\.unfinished\.mp4\."
DECODED = (
    r".* Start again: the segment is then decoded without sampling\. The finished part is in .*"
)
PARTS = (
    Part(r"encode the speech: .*, or use --device cpu\.", Wav2Vec2Model),
    Part(r"encode the portrait: .*, use quantised weights, .*\.", ReferenceNetwork),
    Part(r"sample segment 0: .*, use quantised weights, .*\.", Denoiser),  # keys and values
    Part(f"continue with segment 1: {GO_ON}", AutoencoderKLCogVideoX, 2, (0,), NEW_FRAMES),
    Part(f"sample segment 1: {GO_ON}", AudioProjector, 2, (), NEW_FRAMES),
    Part(f"sample segment 1: {GO_ON}", Denoiser, 2, (), NEW_FRAMES),
    Part(f"decode segment 1: {DECODED}", AutoencoderKLCogVideoX, 1, (1,), NEW_FRAMES),
)


class Starts:
    """Starts of the command line in a folder. Each start writes `video.mp4` again.

    `sampled` are the segments that the last start has sampled. `peaks` has the largest memory that
    each network has ever used, without the memory used before.
    """

    def __init__(self, model: Hallo3, way: str, folder: Path):
        self.model, self.plan, self.folder = model, plan_of(model, *WAYS[way]), folder
        self.peaks: Counter[type[nn.Module]] = Counter()
        save_picture(torch.linspace(0, 1, 40 * 70).expand(3, -1).view(3, 40, 70), folder / "p.png")
        speech = torch.randn(1, SECONDS * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
        save_sound(speech / 10, SAMPLE_RATE, folder / "s.wav", overwrite=True)

    def __call__(self, lacking: Part | None = None) -> int:
        """Start the command, and return its exit status. The part `lacking` lacks memory."""
        self.sampled, self.times, self.lacking = [], Counter(), lacking
        arguments = ["hallo3_core", "animate", "--quiet", "--overwrite", "--whole-image"]
        arguments += ["--device", npu.NAME, "--dtype", "float32", "--steps", "1"]
        for option, name in (("portrait", "p.png"), ("speech", "s.wav"), ("output", "video.mp4")):
            arguments += [f"--{option}", str(self.folder / name)]
        working, sample = Placement.working, ModelAnimator.sample

        @contextmanager
        def watched(placement: Placement, *networks: nn.Module) -> Iterator[None]:
            with self.watch(type(networks[-1])), working(placement, *networks):
                yield

        def noted(animator: ModelAnimator, index: int, *rest) -> torch.Tensor:
            latents = sample(animator, index, *rest)
            self.sampled.append(index)
            return latents

        with ExitStack() as stack:
            for place, name, value in (
                (sys, "argv", arguments),
                (animate_command, "load_model", self.load_model),
                (Placement, "working", watched),
                (ModelAnimator, "sample", noted),
            ):
                stack.enter_context(mock.patch.object(place, name, value))
            return command_line.main()

    def load_model(self, options, device: torch.device, dtype: torch.dtype) -> Hallo3:
        return deepcopy(self.model).to(dtype).placed(device, self.plan)

    @contextmanager
    def watch(self, network: type[nn.Module]) -> Iterator[None]:
        """Run a network. Another program takes the memory that the network needs."""
        self.times[network] += 1
        lacking = self.lacking
        if lacking and (network, self.times[network]) == (lacking.network, lacking.times):
            room = int(SHARE * self.peaks[network])
            npu.accelerator().set_limit(0, torch.npu.memory_allocated(0) + room)
        with npu.peak() as peak:
            yield
        self.peaks[network] = max(self.peaks[network], peak.bytes)

    @property
    def video(self) -> bytes:
        return (self.folder / "video.mp4").read_bytes()


def plan_of(model: Hallo3, in_turn: bool, streamed: int) -> MemoryPlan:
    weights = Weights.of(model.config, model.vae, FORMATS["fp32"], 4)
    work = Work(model.config, model.vae, weights, FORMATS["fp32"], size=4, listening=True)
    plan = work.plan(in_turn, rows=1, free=inf)
    stages = [replace(stage, streamed=streamed if stage.layer else 0) for stage in plan.stages]
    return replace(plan, stages=tuple(stages))


@pytest.mark.parametrize("way", WAYS)
def test_memory_runs_out(recorded_model, way, tmp_path, capsys, monkeypatch):
    """The parts fail one after the other. Each start uses the store of the earlier starts."""
    start = Starts(recorded_model, way, tmp_path)
    with monkeypatch.context() as patched:
        patched.setenv("HALLO3_STORE", str(tmp_path / "undisturbed"))
        assert start() == 0
    undisturbed, before = start.video, torch.npu.memory_allocated(0)
    (tmp_path / "video.mp4").unlink()
    unfinished = tmp_path / "video.unfinished.mp4"
    for part in PARTS:
        assert start(part) == 2
        npu.accelerator().set_limit(0, npu.UNLIMITED)
        *_, complaint = capsys.readouterr().err.splitlines()
        assert re.fullmatch(f"error: There is not enough memory to {part.complaint}", complaint)
        assert start.sampled == list(part.sampled)
        gc.collect()
        assert torch.npu.memory_allocated(0) == before
        assert unfinished.exists() == bool(part.frames)
        if part.frames:
            assert sum(1 for _ in read_frames(unfinished)) == part.frames
            unfinished.unlink()
    assert start() == 0
    assert (start.sampled, start.video) == ([], undisturbed)
