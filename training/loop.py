"""The training loop: learning rates, moving average, checkpoints, log of the losses."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

import torch
from torch import Tensor, nn

from .optimizer import Optimizer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALF = DEVICE.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
"""Whether bf16 is faster than float32. A CPU without AVX-512 multiplies in bf16 40 times slower."""
COMPUTE = torch.bfloat16 if HALF else torch.float32
CHECKPOINT_SECONDS = 120
LOG_STEPS = 20
UNSEEN_STEPS = 200


@dataclass(frozen=True)
class Settings:
    """Settings of a loop.

    The learning rate rises over the first `warmup` steps and falls as a cosine to a tenth. If there
    is a `matrix_rate`, Muon trains the matrices at that rate. `clip` is the largest norm of the
    gradient, and `average` the decay of the moving average.
    """

    steps: int
    rate: float
    matrix_rate: float | None = None
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    clip: float = 1.0
    average: float = 0.999


class Loop:
    """Trains the parameters of `network` that need gradients, on `DEVICE`.

    `folder` gets `checkpoint.pt`, with only what is trained, and `losses.jsonl`. If it has a
    checkpoint, training continues from there.
    """

    def __init__(self, folder: Path, network: nn.Module, settings: Settings):
        self.folder, self.network, self.settings = folder, network.to(DEVICE), settings
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.trained]
        self.optimizer = Optimizer(
            self.trained,
            settings.rate,
            settings.matrix_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self.load()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def run(
        self,
        losses_at: Callable[[int], dict[str, Tensor]],
        unseen: Callable[[], dict[str, Tensor]] | None = None,
    ) -> None:
        """Minimise the sum of the losses of every step.

        `losses_at` takes the step and draws its batch from that number. So a continued run sees the
        same batches. `unseen` gives losses on examples that are never trained on, for the log
        only. When they stop falling, the network overfits.
        """
        self.network.train()
        saved, started, first = time.perf_counter(), time.perf_counter(), self.step
        with (self.folder / "losses.jsonl").open("a") as log:
            while self.step < self.settings.steps:
                losses = losses_at(self.step)
                norm = self.update(sum(losses.values()))
                self.step += 1
                if self.due(LOG_STEPS):
                    seconds = (time.perf_counter() - started) / (self.step - first)
                    shown = numbers(losses)
                    if unseen is not None and self.due(UNSEEN_STEPS):
                        with torch.no_grad():
                            shown |= numbers(unseen(), "unseen ")
                    row = {"step": self.step, **shown, "norm": norm, "step_seconds": seconds}
                    print(json.dumps(row), file=log, flush=True)
                if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = time.perf_counter()
        self.save()

    def due(self, every: int) -> bool:
        """Whether the step is a multiple of `every`, or the last one."""
        return self.step % every == 0 or self.step == self.settings.steps

    def finish(self) -> nn.Module:
        """The network with the moving average of what was trained, on the CPU."""
        with torch.no_grad():
            for parameter, average in zip(self.trained, self.average, strict=True):
                parameter.copy_(average)
        return self.network.cpu().eval()

    @torch.no_grad()
    def follow(self) -> None:
        """Update the moving average. Early steps move it faster, so that it forgets its start."""
        kept = min(self.settings.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, self.trained, 1 - kept)

    def update(self, loss: Tensor) -> float:
        """One step of the optimizer. Returns the norm of the gradient before clipping."""
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.settings.clip).item()
        self.optimizer.step(self.share)
        self.follow()
        return norm

    @property
    def share(self) -> float:
        """Share of the full learning rates at this step."""
        warm = min(1, (self.step + 1) / self.settings.warmup)
        return warm * (0.55 + 0.45 * cos(pi * self.step / self.settings.steps))

    def save(self) -> None:
        state = {
            "step": self.step,
            "trained": [p.detach() for p in self.trained],
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def load(self) -> None:
        state = torch.load(self.checkpoint, "cpu", weights_only=True)
        self.step = state["step"]
        with torch.no_grad():
            for mine, saved in ((self.trained, state["trained"]), (self.average, state["average"])):
                for tensor, value in zip(mine, saved, strict=True):
                    tensor.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])


def mixed_precision() -> torch.autocast:
    """Losses are computed in bf16 where that is faster, else in float32."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=HALF)


def numbers(losses: dict[str, Tensor], prefix: str = "") -> dict[str, float]:
    return {prefix + name: round(loss.item(), 5) for name, loss in losses.items()}
