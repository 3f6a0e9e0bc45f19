"""Measures sharpness: cumulative probability of blur detection (CPBD, Narvekar and Karam 2011)."""

import numpy as np
from skimage.feature import canny
from skimage.filters import sobel_v

BLOCK = 64
EDGE_SHARE = 0.002
"""A block counts only if more than this share of its pixels are edges."""
LOW_CONTRAST, WIDE, NARROW = 50, 5, 3
"""The edge width, in pixels, at which blur is just noticeable.

It is `WIDE` up to the contrast `LOW_CONTRAST`, and `NARROW` above.
"""
BETA = 3.6
JUST_NOTICED = 1 - np.exp(-1)


def cpbd(luminance: np.ndarray) -> float:
    """The sharpness of a picture, 0 (blurred) to 1. NaN if the picture has no edges.

    `luminance` is (height, width), in 0 to 255.
    """
    edges = canny(luminance / 255) & (np.abs(sobel_v(luminance)) > 0)
    widths = _edge_widths(luminance)
    unnoticed = total = 0
    height, width = luminance.shape
    for top in range(0, height - BLOCK + 1, BLOCK):
        for left in range(0, width - BLOCK + 1, BLOCK):
            block = np.s_[top : top + BLOCK, left : left + BLOCK]
            if edges[block].mean() <= EDGE_SHARE:
                continue
            contrast = np.ptp(luminance[block])
            noticed = WIDE if contrast <= LOW_CONTRAST else NARROW
            found = widths[block][edges[block]]
            probability = 1 - np.exp(-((found / noticed) ** BETA))
            unnoticed += (probability <= JUST_NOTICED).sum()
            total += len(found)
    return float(unnoticed / total) if total else float("nan")


def _edge_widths(luminance: np.ndarray) -> np.ndarray:
    """The width of the edge through each pixel of (height, width).

    It is the number of steps in the row that rise, or fall, without a break around the pixel.
    """
    slope = np.diff(luminance, axis=1)
    across = np.pad(luminance[:, 2:] - luminance[:, :-2], ((0, 0), (1, 1)), "edge")
    return np.where(across > 0, _run(slope > 0), _run(slope < 0))


def _run(goes_on: np.ndarray) -> np.ndarray:
    """For each pixel, the number of steps on both sides of it until the first break.

    `goes_on` (height, steps) says which steps have no break. Returns (height, steps + 1).
    """
    height, steps = goes_on.shape
    before, after = np.zeros((2, height, steps + 1))
    for i in range(steps):
        before[:, i + 1] = (before[:, i] + 1) * goes_on[:, i]
        after[:, -2 - i] = (after[:, -1 - i] + 1) * goes_on[:, -1 - i]
    return before + after
