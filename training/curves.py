"""Pictures of the losses of a run."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

SMOOTHED = 20
"""Rows of the log that are averaged."""
NOT_LOSSES = ("step", "norm", "step_seconds")


def plot(folder: Path) -> Path:
    """`losses.png` beside `losses.jsonl`."""
    rows = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    steps = np.array([row["step"] for row in rows])
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    window = np.ones(min(SMOOTHED, len(rows)))
    for name in rows[0]:
        if name not in NOT_LOSSES:
            values = np.array([row[name] for row in rows])
            (line,) = axes.plot(steps, values, alpha=0.25)
            smooth = np.convolve(values, window / window.sum(), "valid")
            axes.plot(steps[len(steps) - len(smooth) :], smooth, label=name, color=line.get_color())
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=folder.name)
    axes.legend()
    path = folder / "losses.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
