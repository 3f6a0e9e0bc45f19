"""Separates the voice from music with an MDX-Net in an ONNX file.

The network takes the complex spectrogram of a few seconds of stereo sound at 44.1 kHz, and returns
the spectrogram of the vocals. The shape of its input gives the number of bins and frames.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..allocator import steady_memory
from ..checkpoints.file_kind import ONNX, read_kind
from ..errors import InputError
from ..onnx import installed, providers
from ..sound.resample import resample
from ..sound.sound import Sound

RATE = 44_100
HOP = 1024
FFT_SIZES = {3072: 7680, 2048: 6144, 4096: 16_384}
"""The FFT size of an MDX-Net, by the number of bins that it sees. Others: twice their bins."""

COMPENSATION = {"Kim_Vocal_2": 1.009}
"""The factor by which the vocals of a network are made louder. For other networks it is 1."""

OVERLAP = 0.25
TOP = 128
"""The number of highest bins that give the share of the vocals above the network's bins."""

FILTER = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}


class VocalIsolator:
    """An MDX-Net in an onnxruntime session."""

    def __init__(self, file: Path):
        """Raises `InputError` without onnxruntime, or if the file is not an MDX-Net."""
        if not installed():
            raise InputError(
                "Isolating vocals needs onnxruntime, which is not installed: run `pip install "
                "onnxruntime` (or onnxruntime-gpu) in ComfyUI's Python."
            )
        read_kind(file, "an MDX-Net", ONNX)
        onnxruntime = importlib.import_module("onnxruntime")
        try:
            self.session = onnxruntime.InferenceSession(str(file), providers=providers())
        except Exception as error:  # onnxruntime raises many kinds
            raise InputError(
                f"{file} cannot be loaded as an ONNX network ({type(error).__name__}): download it "
                "again."
            ) from error
        (given,) = self.session.get_inputs()[:1]
        shape = given.shape
        if len(shape) != 4 or shape[1] != 4 or not all(isinstance(n, int) for n in shape[2:]):
            raise InputError(
                f"{file} is not an MDX-Net, because its input has the shape {shape}: choose "
                "another file, such as Kim_Vocal_2.onnx."
            )
        self.name = given.name
        self.bins, self.frames = shape[2:]
        self.fft = FFT_SIZES.get(self.bins, 2 * self.bins)
        self.compensation = COMPENSATION.get(file.stem, 1.0)
        self.window = torch.hann_window(self.fft)

    def __call__(self, waveform: Tensor, rate: int) -> Tensor:
        """The vocals of a sound (channels, samples) at `rate` Hz, with the same shape and rate.

        Unless there are two channels, the network gets the mean of the channels, and each channel
        of the result is the same. Frequencies that 44.1 kHz cannot hold are kept unchanged.
        """
        channels = len(waveform)
        stereo = waveform if channels == 2 else Sound(waveform.float(), rate).mono().expand(2, -1)
        stereo = stereo.float()
        mix = resample(stereo, rate, RATE, **FILTER)
        with steady_memory():
            vocals = self._isolate(mix)
        if rate != RATE:
            samples = waveform.shape[-1]
            lost = stereo - resample(mix, RATE, rate, **FILTER)[:, :samples]
            vocals = resample(vocals, RATE, rate, **FILTER)[:, :samples] + lost
        return vocals if channels == 2 else vocals.mean(0, keepdim=True).expand(channels, -1)

    def _isolate(self, mix: Tensor) -> Tensor:
        """The vocals of (2, samples) at 44.1 kHz. Overlapping chunks are blended."""
        vocals = torch.zeros_like(mix)
        for start, piece in self._pieces(mix):
            vocals[:, start : start + piece.shape[1]] += piece
        return vocals * self.compensation

    def _pieces(self, mix: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the first sample of each chunk, and its vocals times their blending weights.

        Near the edges of a chunk, the Fourier transform reaches beyond the chunk. So the network
        sees a larger chunk, and its edges are dropped.
        """
        margin, samples = self.fft // 2, mix.shape[1]
        length = HOP * (self.frames - 1) - 2 * margin
        fade = int(length * OVERLAP)
        step = length - fade
        rising = (torch.arange(fade) + 0.5) / fade
        for start in range(0, max(samples - fade, 1), step):
            window = torch.ones(length)
            if start > 0:
                window[:fade] = rising
            if start + step < samples - fade:
                window[-fade:] = rising.flip(0)
            first = start - margin
            seen = F.pad(mix[:, max(first, 0) : start + length + margin], (max(-first, 0), 0))
            seen = F.pad(seen, (0, length + 2 * margin - seen.shape[1]))
            piece = self._separate(seen)[:, margin:-margin] * window
            yield start, piece[:, : samples - start]

    def _separate(self, chunk: Tensor) -> Tensor:
        """The vocals of a chunk (2, HOP * (frames - 1)).

        The network does not see the highest bins. There, the share of the vocals is taken from the
        `TOP` highest bins that it sees.
        """
        spectrum = torch.stft(chunk, self.fft, HOP, window=self.window, return_complex=True)
        seen = spectrum[:, : self.bins]
        given = torch.view_as_real(seen).permute(0, 3, 1, 2).flatten(0, 1)
        (found,) = self.session.run(None, {self.name: given[None].contiguous().numpy()})
        found = torch.from_numpy(found)[0].unflatten(0, (2, 2)).permute(0, 2, 3, 1)
        vocals = torch.view_as_complex(found.contiguous())
        above = spectrum[:, self.bins :] * share(vocals[:, -TOP:], seen[:, -TOP:])
        vocals = torch.cat([vocals, above], dim=1)
        return torch.istft(vocals, self.fft, HOP, window=self.window, length=chunk.shape[1])


def share(part: Tensor, whole: Tensor) -> Tensor:
    """The share of `part` in the spectrum `whole`, for each frame, 0 to 1.

    Both are (channels, bins, frames), complex. Returns (channels, 1, frames).
    """
    power = whole.abs().square().sum(1, keepdim=True)
    common = (part * whole.conj()).real.sum(1, keepdim=True)
    return (common / power.clamp(min=torch.finfo(power.dtype).tiny)).clamp(0, 1)
