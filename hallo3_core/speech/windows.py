"""Which part of the speech each segment of a video has.

Segments have 49 frames; the first two repeat the last two of the segment before, so each brings
47 new ones.
"""

import torch
from torch import Tensor

from ..network.config import AUDIO_WINDOW, MOTION_FRAMES, NEW_FRAMES, SEGMENT_FRAMES
from .encode import FeatureFile


def windows(features: Tensor | FeatureFile, start: int, stop: int) -> Tensor:
    """Windows of five around the frames from `start` to `stop`, clamped to the ends of the speech.

    (frames, 12, channels) to (stop - start, 5, 12, channels).
    """
    half = AUDIO_WINDOW // 2
    first = max(start - half, 0)
    part = features[first : stop + half]
    around = torch.arange(-half, half + 1, device=part.device)
    frames = torch.arange(start - first, stop - first, device=part.device)
    return part[(frames[:, None] + around).clamp(0, len(part) - 1)]


def segment_windows(features: Tensor | FeatureFile, index: int) -> Tensor:
    """Speech of segment `index`, (1, 49, 5, 12, channels).

    The 47 windows of its new frames come after the last two of the segment before (zeros for
    the first segment); past the end of the speech the last window is repeated.
    """
    start = index * NEW_FRAMES
    speech = windows(
        features, max(start - MOTION_FRAMES, 0), min(start + NEW_FRAMES, len(features))
    )
    if index == 0:
        speech = torch.cat([torch.zeros_like(speech[:1]).expand(MOTION_FRAMES, -1, -1, -1), speech])
    missing = SEGMENT_FRAMES - len(speech)
    return torch.cat([speech, speech[-1:].expand(missing, -1, -1, -1)])[None]
