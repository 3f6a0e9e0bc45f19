"""Muon for matrices and kernels, AdamW for everything else."""

from collections.abc import Iterable

import torch
from torch import nn


class Optimizer:
    """torch's Muon for parameters of two or more axes, if it has a rate; AdamW for all others.

    Muon sees a kernel as a matrix (out channels, everything else). It is for networks that are
    trained from scratch.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], rate: float, matrix_rate: float | None, **adamw
    ):
        parameters = list(parameters)
        by_muon = [p.ndim > 1 and matrix_rate is not None for p in parameters]
        chosen = list(zip(parameters, by_muon, strict=True))
        self.views = [(p, nn.Parameter(p.data.view(len(p), -1))) for p, muon in chosen if muon]
        self.adamw = torch.optim.AdamW([p for p, muon in chosen if not muon], rate, **adamw)
        self.parts, self.rates = [self.adamw], [rate]
        if self.views:
            views = [view for _, view in self.views]
            muon = torch.optim.Muon(
                views, matrix_rate, weight_decay=0, adjust_lr_fn="match_rms_adamw"
            )
            self.parts.append(muon)
            self.rates.append(matrix_rate)

    def step(self, share: float) -> None:
        """Update the parameters at this share of the learning rates, and delete the gradients."""
        for part, rate in zip(self.parts, self.rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * share
        for parameter, view in self.views:
            view.grad = None if parameter.grad is None else parameter.grad.view_as(view)
        for part in self.parts:
            part.step()
            part.zero_grad()
        for parameter, _ in self.views:
            parameter.grad = None

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
