"""Speech features: wav2vec2 hidden states at the frame rate of the video."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from tempfile import TemporaryFile

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Wav2Vec2Model

from ..network.config import (
    FPS,
    NEW_FRAMES,
    SAMPLE_RATE,
    SEGMENT_FRAMES,
    frame_count,
    segment_count,
)
from ..sound.sound import Sound
from .long_speech import FRAME_SAMPLES, long_hidden_states, widened

LONGEST_PASS = 3 * 60 * FPS
"""Frames that are encoded by a single call of the encoder; longer speech goes by another way."""


@dataclass(frozen=True)
class Speech:
    """What the denoiser hears.

    `features` (padded frames, 12, channels) are hidden states of the speech encoder, one row for
    each video frame and for the silence that fills the last clip of 49; `frames` is how many of
    them the video has. `sound` is what they were made from, if that is known, and `encoder` the
    fingerprint of the speech encoder.
    """

    features: "Tensor | FeatureFile"
    frames: int
    sound: Sound | None = None
    encoder: str = ""

    @property
    def segments(self) -> int:
        return segment_count(self.frames)

    def new_frames(self, index: int) -> int:
        """How many frames segment `index` brings."""
        return min(self.frames - index * NEW_FRAMES, NEW_FRAMES)

    def on_disk(self) -> "Speech":
        """The same with its features in a file: they take 55 MB a minute."""
        if isinstance(self.features, FeatureFile):
            return self
        return replace(self, features=FeatureFile(self.features.unbind(1)))


class FeatureFile:
    """Float32 (frames, layers, channels) in a temporary file, that can be sliced by frames.

    It is written from the layers, each (frames, channels), one after the other. The file goes
    with the object.
    """

    def __init__(self, layers: Iterable[Tensor]):
        self.file = TemporaryFile()  # noqa: SIM115
        count = 0
        for layer in layers:
            self.file.write(layer.contiguous().numpy().data)
            count += 1
        frames, channels = layer.shape
        self.shape = torch.Size((frames, count, channels))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        frames, layers, channels = self.shape
        start, stop, _ = rows.indices(frames)
        row = channels * torch.float32.itemsize
        parts = []
        for layer in range(layers):
            self.file.seek((layer * frames + start) * row)
            data = bytearray(self.file.read((stop - start) * row))
            parts.append(torch.frombuffer(data, dtype=torch.float32).view(-1, channels))
        return torch.stack(parts, dim=1)


@torch.no_grad()
def encode_speech(encoder: Wav2Vec2Model, waveform: Tensor) -> Speech:
    """Features of a waveform (samples,) at 16 kHz.

    Of more than three minutes in little memory, into a file; the numbers are the same.
    """
    frames = frame_count(len(waveform), SAMPLE_RATE)
    missing = -frames % SEGMENT_FRAMES
    steps = frames + missing
    if steps <= LONGEST_PASS:
        return Speech(hidden_states(encoder, padded(waveform, missing), steps), frames)
    layers = long_hidden_states(encoder, padded(waveform, missing), steps)
    return Speech(FeatureFile(layers), frames)


def padded(waveform: Tensor, missing: int) -> Tensor:
    """Zero mean, unit variance, and silence for the `missing` frames."""
    normed = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    return F.pad(normed, (0, missing * FRAME_SAMPLES))


def hidden_states(encoder: Wav2Vec2Model, waveform: Tensor, steps: int) -> Tensor:
    """The encoder's 12 hidden states after the embedding.

    (samples,) to (steps, 12, channels), float32 on the CPU. The convolutional features are
    interpolated to `steps` before the encoder sees them. The encoder's parts are called one by one,
    because a hook on it would change what other threads compute with it.
    """
    features = encoder.feature_extractor(waveform[None].to(encoder.device, encoder.dtype))
    features = F.interpolate(features, size=steps, mode="linear", align_corners=True)
    hidden = encoder.feature_projection(features.transpose(1, 2))[0]
    hidden = encoder.encoder.layer_norm(hidden + encoder.encoder.pos_conv_embed(hidden))
    states = []
    for layer in encoder.encoder.layers:
        hidden = layer.layer_norm(hidden + layer.attention(hidden)[0])
        hidden = layer.final_layer_norm(hidden + layer.feed_forward(hidden))
        states.append(widened(encoder, hidden[0]))
    return torch.stack(states, dim=1)
