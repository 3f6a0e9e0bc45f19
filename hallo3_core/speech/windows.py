"""Cuts the speech into segments.

A segment has 49 frames. The first two repeat the last two frames of the previous segment. So each
segment has 47 new frames.
"""

import torch
from torch import Tensor

from ..network.config import AUDIO_WINDOW, MOTION_FRAMES, NEW_FRAMES, SEGMENT_FRAMES
from .encode import FeatureFile


def windows(features: Tensor | FeatureFile, start: int, stop: int) -> Tensor:
    """The windows of five frames around each frame from `start` to `stop`.

    `features` is (frames, 12, channels). Returns (stop - start, 5, 12, channels). Beyond the ends
    of the speech, the first or the last frame is repeated.
    """
    half = AUDIO_WINDOW // 2
    first = max(start - half, 0)
    part = features[first : stop + half]
    around = torch.arange(-half, half + 1, device=part.device)
    frames = torch.arange(start - first, stop - first, device=part.device)
    return part[(frames[:, None] + around).clamp(0, len(part) - 1)]


def segment_windows(features: Tensor | FeatureFile, index: int) -> Tensor:
    """The speech of segment `index`, (1, 49, 5, 12, channels).

    The first two windows are the last two of the previous segment, or zeros for the first segment.
    The other 47 are those of the new frames. After the end of the speech, the last window is
    repeated.
    """
    start = index * NEW_FRAMES
    speech = windows(
        features, max(start - MOTION_FRAMES, 0), min(start + NEW_FRAMES, len(features))
    )
    if index == 0:
        speech = torch.cat([torch.zeros_like(speech[:1]).expand(MOTION_FRAMES, -1, -1, -1), speech])
    missing = SEGMENT_FRAMES - len(speech)
    return torch.cat([speech, speech[-1:].expand(missing, -1, -1, -1)])[None]
