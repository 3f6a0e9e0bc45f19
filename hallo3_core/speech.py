"""Speech features: wav2vec2 hidden states at the frame rate of the video."""

from dataclasses import dataclass
from math import ceil, gcd
from tempfile import TemporaryFile

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor
from transformers import Wav2Vec2Model

from .config import AUDIO_LAYERS, FPS, SAMPLE_RATE, SEGMENT_FRAMES, frame_count, segment_count

FRAME_SAMPLES = SAMPLE_RATE // FPS
LARGEST_RATIO = 1000


@dataclass(frozen=True)
class Speech:
    """What the denoiser hears.

    `features` (padded frames, 12, channels) are hidden states of the speech encoder, one row for
    each video frame and for the silence that fills the last clip of 49; `frames` is how many of
    them the video has.
    """

    features: "Tensor | FeatureFile"
    frames: int

    @property
    def segments(self) -> int:
        return segment_count(self.frames)

    def on_disk(self) -> "Speech":
        """The same with its features in a file: they take 55 MB a minute."""
        return Speech(FeatureFile(self.features), self.frames)


class FeatureFile:
    """A float32 tensor in a temporary file, that can be sliced along its first dimension.

    The file goes with the object.
    """

    def __init__(self, features: Tensor):
        self.shape = features.shape
        self.file = TemporaryFile()  # noqa: SIM115
        self.file.write(features.contiguous().numpy().data)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        start, stop, _ = rows.indices(len(self))
        row = self.shape[1:].numel() * torch.float32.itemsize
        self.file.seek(start * row)
        data = bytearray(self.file.read((stop - start) * row))
        return torch.frombuffer(data, dtype=torch.float32).view(-1, *self.shape[1:])


def prepare_waveform(waveform: Tensor, rate: int) -> Tensor:
    """(channels, samples) at `rate` Hz to (samples,) at 16 kHz, mono, float32.

    torchaudio's filter has rate * 16000 / gcd^2 taps, so rates that share little with 16 kHz go
    to their nearest 100 Hz by linear interpolation first, which is less than 1 % away.
    """
    mono = waveform.float().mean(0)
    samples = ceil(len(mono) * SAMPLE_RATE / rate)
    if rate // gcd(rate, SAMPLE_RATE) > LARGEST_RATIO:
        round_rate = max(100 * round(rate / 100), 100)
        mono = F.interpolate(mono[None, None], scale_factor=round_rate / rate, mode="linear")[0, 0]
        rate = round_rate
    resampled = torchaudio.functional.resample(mono, rate, SAMPLE_RATE)
    return F.pad(resampled, (0, samples - len(resampled)))


@torch.no_grad()
def encode_speech(encoder: Wav2Vec2Model, waveform: Tensor) -> Speech:
    """Features of a waveform (samples,) at 16 kHz."""
    frames = frame_count(len(waveform), SAMPLE_RATE)
    missing = -frames % SEGMENT_FRAMES
    waveform = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    waveform = F.pad(waveform, (0, missing * FRAME_SAMPLES))
    return Speech(hidden_states(encoder, waveform, frames + missing), frames)


def hidden_states(encoder: Wav2Vec2Model, waveform: Tensor, steps: int) -> Tensor:
    """The encoder's 12 hidden states after the embedding.

    (samples,) to (steps, 12, channels), float32 on the CPU. The convolutional features are
    interpolated to `steps` before the encoder sees them.
    """

    def resize(module, inputs, features: Tensor) -> Tensor:
        return F.interpolate(features, size=steps, mode="linear", align_corners=True)

    handle = encoder.feature_extractor.register_forward_hook(resize)
    try:
        out = encoder(waveform[None].to(encoder.device, encoder.dtype), output_hidden_states=True)
    finally:
        handle.remove()
    return torch.stack(out.hidden_states[-AUDIO_LAYERS:], dim=2)[0].float().cpu()
