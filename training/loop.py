"""The loop around every training: schedule, average, checkpoints, losses."""

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
"""Whether bf16 is the faster: a CPU without AVX-512 multiplies in it forty times slower."""
COMPUTE = torch.bfloat16 if HALF else torch.float32
CHECKPOINT_SECONDS = 120
LOG_STEPS = 20
UNSEEN_STEPS = 200


@dataclass(frozen=True)
class Settings:
    """`steps`, and learning rates that rise over `warmup` of them and fall as a cosine to a tenth.

    With a `matrix_rate` matrices are left to Muon.
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
    """Trains what needs gradients in `network`, and goes on where its folder says it stopped.

    The folder holds `checkpoint.pt`, of what is trained alone, and `losses.jsonl`. The network goes
    to `DEVICE`.
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

        `losses_at` is given the step and draws its batch from that, so that a run that goes on
        sees what it would have seen. `unseen` gives losses of what is never trained on, for the log
        alone: where they stop falling, the network learns by heart.
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
        """Whether this step is one of every so many, or the last."""
        return self.step % every == 0 or self.step == self.settings.steps

    def finish(self) -> nn.Module:
        """The network with the exponential moving average of what was trained, on the CPU."""
        with torch.no_grad():
            for parameter, average in zip(self.trained, self.average, strict=True):
                parameter.copy_(average)
        return self.network.cpu().eval()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the network, faster at first: it forgets where it began."""
        kept = min(self.settings.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, self.trained, 1 - kept)

    def update(self, loss: Tensor) -> float:
        """One step of the optimizer; returns the norm of the gradient."""
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.settings.clip).item()
        self.optimizer.step(self.share)
        self.follow()
        return norm

    @property
    def share(self) -> float:
        """Of the learning rates, at this step."""
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
    """What losses are computed in: bf16 where that is the faster, float32 elsewhere."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=HALF)


def numbers(losses: dict[str, Tensor], prefix: str = "") -> dict[str, float]:
    return {prefix + name: round(loss.item(), 5) for name, loss in losses.items()}
