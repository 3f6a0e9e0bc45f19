"""SyncNet (Chung and Zisserman 2016) measures whether the lips match the sound.

The user provides the weights: the file `syncnet_v2.model` of its authors. The results are the two
numbers of talking-head papers. LSE-D is the distance of lips and sound at the best shift. LSE-C is
the difference between the median distance of all shifts and LSE-D.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dct
from scipy.ndimage import median_filter
from torch import Tensor, nn

from ..checkpoints.user_file import fill
from ..errors import InputError
from ..network.config import SAMPLE_RATE
from .likeness import cut_face

SQUARE_SIDE = 224
FRAMES = 5
"""The number of video frames that the network sees at a time."""
MFCC_FRAMES = 20
MFCC_PER_FRAME = 4
MOST_SHIFT = 15
BATCH = 20
ROOM = 0.4
"""Space around a face, in halves of its larger side: left and right, and twice this below."""
STEADIED = 13
"""The number of frames of the median filter over the face boxes."""

FFT_WINDOW, HOP, BINS = 400, 160, 512
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
PREEMPHASIS = 0.97
LOUDEST = 32768
"""SyncNet was trained on 16-bit sounds."""


class Sync(NamedTuple):
    """The result of SyncNet: LSE-D, LSE-C and the best shift."""

    distance: float
    confidence: float
    shift: int
    """The number of frames by which the sound is late."""


class SyncNet(nn.Module):
    """The network. Its tensors have the names of the weights file."""

    def __init__(self):
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_block(nn.Conv2d(1, 64, 3, padding=1)),
            nn.MaxPool2d(1, 1),
            *_block(nn.Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *_block(nn.Conv2d(192, 384, 3, padding=1)),
            *_block(nn.Conv2d(384, 256, 3, padding=1)),
            *_block(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_block(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_block(nn.Conv3d(3, 96, (5, 7, 7), (1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
            for _ in range(2)
        )

    def hear(self, mfcc: Tensor) -> Tensor:
        """Embed sounds: MFCCs (batch, 1, 13, 20) to (batch, 1024)."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def watch(self, faces: Tensor) -> Tensor:
        """Embed faces: BGR in 0 to 255, (batch, 3, 5, 224, 224) to (batch, 1024)."""
        return self.netfclip(self.netcnnlip(faces).flatten(1))


def _block(conv: nn.Conv2d | nn.Conv3d) -> tuple[nn.Module, ...]:
    norm = nn.BatchNorm2d if isinstance(conv, nn.Conv2d) else nn.BatchNorm3d
    return conv, norm(conv.out_channels), nn.ReLU()


def load_syncnet(file: Path, device: torch.device | str = "cpu") -> SyncNet:
    """Load SyncNet. Raises `InputError` if a tensor is missing or has another shape."""
    network = SyncNet()
    fill(network, file, "SyncNet", "its authors' syncnet_v2.model")
    return network.to(device)


def face_squares(frames: Iterable[np.ndarray], boxes: np.ndarray) -> Tensor:
    """Cut squares around the faces out of frames (height, width, 3): (frames, 3, 224, 224) uint8.

    `boxes` (frames, 4) are left, top, right and bottom as shares of a frame. A median filter
    smooths them over time first.
    """
    squares = []
    steady = median_filter(boxes, (STEADIED, 1), mode="nearest")
    for frame, (left, top, right, bottom) in zip(frames, steady, strict=True):
        height, width = frame.shape[:2]
        across, down = (left + right) / 2 * width, (top + bottom) / 2 * height
        half = max((right - left) * width, (bottom - top) * height) / 2
        wide = half * (1 + ROOM)
        square = (across - wide, down - half, across + wide, down + half * (1 + 2 * ROOM))
        box = torch.tensor([square]) / torch.tensor([width, height, width, height])
        cut = cut_face(torch.from_numpy(frame)[None].float(), box.float(), SQUARE_SIDE)
        squares.append(cut[0].round().byte())
    return torch.stack(squares)


def sync(network: SyncNet, faces: Tensor, waveform: np.ndarray) -> Sync:
    """Measure lip sync with SyncNet, on the device of the network.

    `faces` are those of `face_squares`, `waveform` (samples,) is their sound at 16 kHz. Raises
    `InputError` if the video is too short.
    """
    device = next(network.parameters()).device
    heard = torch.from_numpy(mfcc(waveform)).T.to(device)
    frames = min(len(faces) - FRAMES, (heard.shape[1] - MFCC_FRAMES) // MFCC_PER_FRAME) + 1
    if frames <= MOST_SHIFT:
        raise InputError(
            f"SyncNet can compare lips and sound at only {frames} frames, and needs more than "
            f"{MOST_SHIFT}: use a video of 1 s or more."
        )
    clips = faces.unfold(0, FRAMES, 1)[:frames].movedim(-1, 2)
    sounds = heard.unfold(1, MFCC_FRAMES, MFCC_PER_FRAME)[:, :frames].movedim(1, 0)[:, None]
    parts = (part.to(device).flip(1).float() for part in clips.split(BATCH))
    lips = torch.cat([network.watch(part) for part in parts])
    voices = F.pad(network.hear(sounds), (0, 0, MOST_SHIFT, MOST_SHIFT))
    shifted = voices.unfold(0, 2 * MOST_SHIFT + 1, 1)
    distances = F.pairwise_distance(lips[..., None].mT, shifted.mT).mean(0)
    best = int(distances.argmin())
    confidence = distances.median() - distances[best]
    return Sync(distances[best].item(), confidence.item(), best - MOST_SHIFT)


def mfcc(waveform: np.ndarray) -> np.ndarray:
    """The MFCCs of a waveform (samples,) at 16 kHz: (frames, 13) float32, 100 frames a second.

    They are those of python_speech_features with its defaults. SyncNet was trained with these.
    """
    sound = waveform.astype(np.float64) * LOUDEST
    sound = np.append(sound[0], sound[1:] - PREEMPHASIS * sound[:-1])
    count = 1 + max(-(-(len(sound) - FFT_WINDOW) // HOP), 0)
    sound = np.pad(sound, (0, max((count - 1) * HOP + FFT_WINDOW - len(sound), 0)))
    windows = np.lib.stride_tricks.sliding_window_view(sound, FFT_WINDOW)[::HOP][:count]
    power = np.abs(np.fft.rfft(windows, BINS)) ** 2 / BINS
    least = np.finfo(float).eps
    coefficients = dct(np.log(np.maximum(power @ mel_filters().T, least)), norm="ortho")
    found = coefficients[:, :COEFFICIENTS]
    found *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    found[:, 0] = np.log(np.maximum(power.sum(1), least))
    return found.astype(np.float32)


def mel_filters() -> np.ndarray:
    """Triangular filters (26, 257), evenly spaced on the mel scale from 0 to 8 kHz."""
    most = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, most, FILTERS + 2) / 2595) - 1)
    edges = np.floor((BINS + 1) * edges / SAMPLE_RATE).astype(int)
    filters = np.zeros((FILTERS, BINS // 2 + 1))
    for row, left, middle, right in zip(filters, edges, edges[1:], edges[2:], strict=False):
        row[left:middle] = (np.arange(left, middle) - left) / (middle - left)
        row[middle:right] = (right - np.arange(middle, right)) / (right - middle)
    return filters
