"""How a long video is cut into segments, and what one segment hands to the next.

Segments have 49 frames; the first two repeat the last two of the segment before, so each brings
47 new ones.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from .config import AUDIO_WINDOW, LATENT_FRAMES, MOTION_FRAMES, NEW_FRAMES, SEGMENT_FRAMES
from .noise import Stream
from .speech import FeatureFile
from .vae import encode

DROPPED_PIXELS = 0.1
FADED_FRAMES = 12
"""Over so many new frames a segment leaves the colours of the one before; ours, not published."""


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


def motion_latents(
    vae: AutoencoderKLCogVideoX, portrait: Tensor, motion_frames: Tensor, noise: Stream
) -> Tensor:
    """The motion channels of a segment, (1, 16, 13, height / 8, width / 8).

    `portrait` (1, 3, height, width) is the canvas portrait and `motion_frames`
    (1, 3, 2, height, width) the last frames of the segment before, both in [-1, 1]. A tenth of
    the pixel positions of the motion frames is dropped; portrait and motion frames are encoded
    together to the first latent frame, and the others are zero.

    Draws a uniform (height, width) mask, then the posterior noise.
    """
    kept = noise.uniform(*portrait.shape[-2:]) >= DROPPED_PIXELS
    frames = torch.cat([portrait[:, :, None].to(motion_frames), motion_frames], dim=2)
    frames[:, :, 1:] *= kept.to(frames)
    return F.pad(encode(vae, frames, noise), (0, 0, 0, 0, 0, LATENT_FRAMES - 1))


def fade_in(frames: Tensor, repeated: Tensor, last: Tensor) -> Tensor:
    """New frames of a segment, without the jump from the segment before.

    `frames` (frames, height, width, 3) in [0, 1]; `repeated` (height, width, 3) is the last motion
    frame as this segment has it, and `last` the same moment as the segment before has it. What
    these differ by is added to the first `FADED_FRAMES`, less and less, along half a cosine: it
    begins and ends to go gently.
    """
    time = torch.arange(1, FADED_FRAMES + 1).to(frames) / (FADED_FRAMES + 1)
    share = (torch.cos(torch.pi * time) + 1) / 2
    beginning = frames[:FADED_FRAMES] + share[: len(frames), None, None, None] * (last - repeated)
    return torch.cat([beginning.clamp(0, 1), frames[FADED_FRAMES:]])
