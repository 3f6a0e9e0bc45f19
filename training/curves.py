"""Plots of the losses of a run."""

import json
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

SMOOTHED = 20
"""Rows of the log that a smooth curve averages. For a loss that is in few rows, it is fewer."""
NOT_LOSSES = ("step", "norm", "step_seconds")


def plot(folder: Path) -> Path:
    """Draw `losses.png` beside `losses.jsonl` in `folder`. Returns it."""
    rows = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name in dict.fromkeys(chain.from_iterable(rows)):
        if name not in NOT_LOSSES:
            known = [(row["step"], row[name]) for row in rows if name in row]
            steps, values = np.array(known).T
            window = np.ones(max(min(SMOOTHED, len(rows)) * len(known) // len(rows), 1))
            (line,) = axes.plot(steps, values, alpha=0.25)
            smooth = np.convolve(values, window / window.sum(), "valid")
            axes.plot(steps[len(steps) - len(smooth) :], smooth, label=name, color=line.get_color())
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=folder.name)
    axes.legend()
    path = folder / "losses.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
