"""The loop around every training: stops, averages, learning rates and the log."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from training.curves import plot
from training.loop import Loop, Settings
from training_data import SETTINGS


def regression(folder, stop: int = SETTINGS.steps) -> Loop:
    """Learns a matrix and a bias; `stop` cuts the run short, as a crash does."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    loop = Loop(folder, network, SETTINGS)

    def losses(step: int) -> dict[str, torch.Tensor]:
        if step == stop:
            raise InterruptedError
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return {"square": (network(x) - x[:, :2] - 1).pow(2).mean()}

    try:
        loop.run(losses)
    except InterruptedError:
        loop.save()
    return loop


def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does(tmp_path):
    whole = regression(tmp_path / "whole")
    regression(tmp_path / "broken", stop=5)
    resumed = regression(tmp_path / "broken")
    assert resumed.step == 8
    for ours, theirs in zip(whole.average, resumed.average, strict=True):
        assert torch.equal(ours, theirs)


def test_losses_of_what_is_not_trained_on_are_logged(tmp_path):
    network = nn.Linear(1, 1)
    loop = Loop(tmp_path, network, replace(SETTINGS, steps=400))

    def losses() -> dict[str, torch.Tensor]:
        return {"square": (network(torch.ones(1)) - 1).square().sum()}

    loop.run(lambda step: losses(), lambda: {"square": losses()["square"] + 5})
    rows = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "unseen square" in row] == [200, 400]
    assert rows[-1]["unseen square"] == pytest.approx(5, abs=1e-2)
    assert plot(tmp_path).stat().st_size > 10_000


def test_the_average_follows_what_is_trained(tmp_path):
    """1, at first nine tenths of the way to 2, later a quarter of the way to 3."""
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    loop = Loop(tmp_path, network, replace(SETTINGS, average=0.75))
    for loop.step, value in ((0, 2.0), (100, 3.0)):
        nn.init.constant_(network.weight, value)
        loop.follow()
    assert loop.finish().weight.item() == pytest.approx(1.9 + 0.25 * 1.1)


def test_the_learning_rate_rises_and_falls(tmp_path):
    loop = Loop(tmp_path, nn.Linear(1, 1), Settings(steps=1000, rate=1.0, warmup=100))
    shares = []
    for step in (0, 99, 500, 999):
        loop.step = step
        shares.append(loop.share)
    assert shares == pytest.approx([0.01, 0.978, 0.55, 0.1], abs=1e-3)


def test_curves_are_drawn(tmp_path):
    rows = [f'{{"step": {20 * i}, "v": {1 / (i + 1)}, "norm": 1.0}}' for i in range(30)]
    (tmp_path / "losses.jsonl").write_text("\n".join(rows))
    assert plot(tmp_path).stat().st_size > 10_000
