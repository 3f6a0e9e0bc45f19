"""Speech features: wav2vec2 hidden states at the frame rate of the video."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from tempfile import TemporaryFile

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Wav2Vec2Model

from ..errors import InputError
from ..network.config import (
    FPS,
    SAMPLE_RATE,
    SEGMENT_FRAMES,
    frame_count,
    new_frame_count,
    segment_count,
)
from ..sound.sound import Sound
from .long_speech import FRAME_SAMPLES, long_hidden_states, widened

LONGEST_PASS = 3 * 60 * FPS
"""The most video frames that one call of the encoder encodes. `long_speech` encodes longer ones."""

MOST_STRENGTH = 2.0
"""The largest strength of the speech."""


@dataclass(frozen=True)
class Speech:
    """The encoded speech of a video.

    - `features` (padded frames, 12, channels), float32: hidden states of the speech encoder, one
      row for each video frame. Silence is added until the number of rows is a multiple of 49.
    - `frames`: the number of video frames, without the added silence.
    - `sound`: the sound that was encoded, if it is known.
    - `encoder`: the fingerprint of the speech encoder, and how the sound was changed for it.
    - `silence` (12, channels): the features of a frame of silence, if they are known.
    - `strength` (frames,): how strongly each frame moves the face, or None for 1 everywhere.
    """

    features: "Tensor | FeatureFile"
    frames: int
    sound: Sound | None = None
    encoder: str = ""
    silence: Tensor | None = None
    strength: Tensor | None = None

    @property
    def segments(self) -> int:
        return segment_count(self.frames)

    def driven(self, strength: Tensor) -> "Speech":
        """The same speech with the strength of each frame, (frames,).

        Raises `InputError` if there are more or fewer numbers than frames, or if they are not from
        0 to 2.
        """
        if strength.shape != (self.frames,):
            raise InputError(
                f"The strength of the speech has {strength.numel()} numbers and the speech "
                f"{self.frames} frames: give one number for each frame."
            )
        if not bool(((strength >= 0) & (strength <= MOST_STRENGTH)).all()):
            raise InputError(
                f"The strength of the speech goes from {strength.min():g} to {strength.max():g}: "
                f"use 0 to {MOST_STRENGTH:g}."
            )
        return replace(self, strength=strength)

    def new_frames(self, index: int) -> int:
        """The number of new frames in segment `index`."""
        return new_frame_count(self.frames, index)

    def lasting(self, frames: int) -> "Speech":
        """The same speech in a video of `frames` frames: cut there, or with silence after it."""
        features, strength = self.features, self.strength
        missing = frames + -frames % SEGMENT_FRAMES - len(features)
        if missing > 0:
            silence = features[-1:] if self.silence is None else self.silence[None]
            features = torch.cat([features[:], silence.expand(missing, -1, -1)])
        if strength is not None:
            strength = F.pad(strength[:frames], (0, max(frames - self.frames, 0)), value=1)
        return replace(self, features=features, frames=frames, strength=strength)

    def on_disk(self) -> "Speech":
        """The same speech with its features in a file. They take 55 MB a minute."""
        if isinstance(self.features, FeatureFile):
            return self
        return replace(self, features=FeatureFile(self.features.unbind(1)))


class FeatureFile:
    """Features (frames, layers, channels), float32, in a temporary file. Slices read its frames.

    `layers` are written one after the other, each (frames, channels). The file is deleted with the
    object.
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
    """Encode a waveform (samples,) at 16 kHz.

    Speech of more than three minutes is encoded in little memory, into a file. The numbers are the
    same.
    """
    frames = frame_count(len(waveform), SAMPLE_RATE)
    missing = -frames % SEGMENT_FRAMES
    steps = frames + missing
    silence = silent_frame(encoder)
    if steps <= LONGEST_PASS:
        features = hidden_states(encoder, padded(waveform, missing), steps)
        return Speech(features, frames, silence=silence)
    layers = long_hidden_states(encoder, padded(waveform, missing), steps)
    return Speech(FeatureFile(layers), frames, silence=silence)


def silent_frame(encoder: Wav2Vec2Model) -> Tensor:
    """The features (12, channels) of a frame in the middle of silence as long as a segment."""
    waveform = torch.zeros(SEGMENT_FRAMES * FRAME_SAMPLES)
    return hidden_states(encoder, waveform, SEGMENT_FRAMES)[SEGMENT_FRAMES // 2]


def padded(waveform: Tensor, missing: int) -> Tensor:
    """Normalise a waveform (samples,) to zero mean and unit variance, and add silence at its end.

    The silence is as long as `missing` video frames.
    """
    normed = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    return F.pad(normed, (0, missing * FRAME_SAMPLES))


def hidden_states(encoder: Wav2Vec2Model, waveform: Tensor, steps: int) -> Tensor:
    """The hidden states of the encoder's 12 layers.

    `waveform` is (samples,). Returns (steps, 12, channels), float32 on the CPU. The convolutional
    features are interpolated to `steps` before the first layer. The parts of the encoder are called
    one by one: a hook on the encoder would change the results of other threads that use it.
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
