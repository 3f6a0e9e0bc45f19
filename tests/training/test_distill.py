"""Distillation: few calls for many, as a LoRA that ComfyUI and the command line read."""

import json
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from safetensors import safe_open
from torch import Tensor

from hallo3_core.model.finding import TRANSFORMER_FILE
from hallo3_core.model.loading import load_transformers
from hallo3_core.model.lora import add_lora
from hallo3_core.sampling.samplers import SAMPLERS, sample
from hallo3_core.sampling.schedule import Schedule, spaced
from small_model import save_model
from training import __main__ as command_line
from training.denoiser import batch_of, freeze, losses
from training.distill import DISTILLED, roll_out
from training.networks import Batch, Networks
from training.trajectories import (
    AT_ONCE,
    Teacher,
    Trajectories,
    conditioned,
    draw_batch,
    leading_v,
    trajectory,
)
from training_data import CONFIG, One, example

STUDENT = Schedule.plain(spaced(4))


def test_the_teacher_passes_the_timesteps_of_the_student():
    fine, few = Teacher(steps=4, detail=4).schedule, Teacher(steps=4).student
    assert few.timesteps.tolist() == [999, 749, 499, 249]
    assert torch.equal(fine.timesteps[::4], few.timesteps)
    assert torch.equal(fine.alphas[::4], few.alphas)


def test_the_v_of_every_point_leads_along_the_trajectory():
    """The sampler `few` arrives where the teacher did, if v is what is taught."""
    wanted = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))

    def teacher(x, timestep):  # of a world with two videos: not on a straight line
        alpha = Teacher().schedule.alphas[(Teacher().schedule.timesteps == timestep).nonzero()[0]]
        guess = torch.tanh(x + wanted).float()
        return ((alpha * x - guess) / (1 - alpha**2).sqrt()).float()

    *states, last = trajectory(teacher, noise, Teacher().schedule)
    points = [*states[::4], last]

    def student(x, timestep):
        phase = STUDENT.timesteps.tolist().index(timestep)
        assert torch.allclose(x, points[phase], atol=1e-5)
        return leading_v(x, points[phase + 1], *STUDENT.alphas[phase : phase + 2])

    *_, found = sample(student, noise, STUDENT, SAMPLERS["few"], lambda: noise)
    assert (found - last).abs().max() < 1e-5


def few_steps(networks: Networks, batch: Batch) -> Tensor:
    """Latents by the sampler `few`, from the noise of a batch."""
    with torch.no_grad():
        predict = conditioned(networks, batch)
        *_, found = sample(predict, batch.latents, STUDENT, SAMPLERS["few"], lambda: batch.latents)
    return found


def error(networks: Networks, batch: Batch) -> float:
    """Of the few steps, from the clip."""
    return (few_steps(networks, batch) - example().video).square().mean().item()


def learn(networks: Networks, draw, steps: int, rate: float) -> None:
    freeze(networks, DISTILLED)
    optimizer = torch.optim.Adam(networks.denoiser.parameters(), rate)
    for step in range(steps):
        losses(networks, draw(step))["v"].backward()
        optimizer.step()
        optimizer.zero_grad()


def start() -> tuple[Networks, Batch]:
    torch.manual_seed(0)
    noise = torch.randn(2, 16, 13, 4, 6)
    batch = batch_of([example()] * 2, noise, torch.zeros(2, dtype=torch.long), noise)
    return Networks.from_nothing(CONFIG), batch


def test_the_student_learns_what_the_clip_is():
    stage = replace(DISTILLED, batch=2)
    networks, batch = start()
    before = error(networks, batch)
    learn(networks, partial(roll_out, networks, One(), stage, 4), 60, 1e-2)
    assert error(networks, batch) < 0.5 * before


def test_the_student_learns_where_the_teacher_arrives(tmp_path):
    """A teacher with guidance, from the same noise."""
    teacher, _ = start()
    stage = replace(DISTILLED, batch=AT_ONCE)
    learn(teacher, partial(roll_out, teacher, One(), stage, 4), 30, 1e-2)
    trajectories = Trajectories(tmp_path, One(), stage, Teacher(guidance=2.0))
    trajectories.sample(teacher, 2)
    student = deepcopy(teacher)
    points = trajectories.points(0)

    def off() -> float:
        drawn = trajectories.drawn(0)
        given = batch_of(drawn, points[:, 0], torch.zeros(AT_ONCE, dtype=torch.long), points[:, 0])
        return (few_steps(student, given) - points[:, -1]).square().mean().item()

    before = off()
    learn(student, partial(draw_batch, trajectories, 2, 8), 60, 3e-3)
    assert off() < 0.5 * before


def test_trajectories_are_kept_and_made_anew_for_another_teacher(tmp_path):
    networks, _ = start()
    stage, group = replace(DISTILLED, batch=AT_ONCE), tmp_path / "000000.safetensors"
    Trajectories(tmp_path, One(), stage, Teacher()).sample(networks, 1)
    made = group.stat().st_mtime_ns
    Trajectories(tmp_path, One(), stage, Teacher()).sample(networks, 1)
    assert group.stat().st_mtime_ns == made
    Trajectories(tmp_path, One(), stage, Teacher(guidance=2.0)).sample(networks, 1)
    assert group.stat().st_mtime_ns > made


def distill(run: Path, clips: Path, *options: object) -> None:
    words = ["training", "distill", run, "--clips", clips, "--unseen", clips, *options]
    words += ["--training-steps", "2", "--batch", "1", "--trajectories", "1"]
    with mock.patch.object(sys, "argv", [str(word) for word in words]):
        assert command_line.main() == 0


def test_a_lora_of_the_published_model(tmp_path, clips):
    """In small and of random weights: from its files to a LoRA that changes what is sampled."""
    model = save_model(tmp_path / "model")
    distill(tmp_path / "run", clips, "--model", model, "--lora", "16")
    file = tmp_path / "run" / "hallo3_distill_lora_16.safetensors"
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"hallo3_steps": "4"}
    rows = (tmp_path / "run" / "distill_lora_16" / "losses.jsonl").read_text().splitlines()
    assert {"v", "unseen v"} <= json.loads(rows[-1]).keys()
    denoiser, *_ = load_transformers(model / TRANSFORMER_FILE)
    before = deepcopy(denoiser.state_dict())
    add_lora(denoiser, file, 0)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    add_lora(denoiser, file)
    changed = {
        name for name, p in denoiser.state_dict().items() if not torch.equal(p, before[name])
    }
    places = {name.removesuffix(".weight").split(".", 2)[2] for name in changed}
    assert places == {
        "modulation", "query_key_value", "attention_out", "mlp.up", "mlp.down",
        "face_attention.query", "face_attention.key_value", "face_attention.out",
        "audio_attention.query", "audio_attention.key_value", "audio_attention.out",
    }  # fmt: skip
