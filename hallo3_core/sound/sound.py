"""A sound in memory or in a temporary file. It is animated, and it becomes the sound track."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from tempfile import TemporaryFile, gettempdir

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..network.config import SAMPLE_RATE
from .channels import mean_weights, mixing_weights
from .resample import resampled

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
RATES = (1000, 1_000_000)
SILENCE = 1e-4
"""A sound with no louder sample is silent. It is 80 dB below full scale, 3 steps of 16 bits."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sound:
    """A waveform (channels, samples), float32, at `rate` Hz. Full scale is 1.

    Raises `InputError` if the rate is below 1,000 or above 1,000,000.
    """

    waveform: "Tensor | SampleFile"
    rate: int

    def __post_init__(self):
        check_rate(self.rate)

    @property
    def channels(self) -> int:
        return self.waveform.shape[0]

    @property
    def layout(self) -> str:
        """FFmpeg's name of the channels of a sound with one or two."""
        return "mono" if self.channels == 1 else "stereo"

    @property
    def samples(self) -> int:
        return self.waveform.shape[1]

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    @property
    def peak(self) -> float:
        """The largest absolute value of a sample; 0 if the sound is empty."""
        return max(piece.abs().max().item() if piece.numel() else 0 for piece in self.pieces())

    def cut(self, start: float, stop: float) -> Tensor:
        """Return the sound from `start` to `stop` seconds, (channels, samples).

        Before the beginning and after the end there is silence. If one cut starts where another
        stops, they neither overlap nor leave a gap.
        """
        first, last = round(start * self.rate), round(stop * self.rate)
        part = self.waveform[:, max(first, 0) : max(last, 0)]
        before = min(max(-first, 0), last - first)
        return F.pad(part, (before, last - first - before - part.shape[1]))

    def pieces(self) -> Iterator[Tensor]:
        """Yield the whole waveform in pieces (channels, samples), some seconds at a time."""
        return resampled(self.waveform, self.rate, self.rate)

    def mono(self, rate: int | None = None) -> Tensor:
        """The mean of the channels, (samples,), float32, at `rate` Hz or at the sound's own rate.

        If the channels cancel each other out, it is the loudest channel.
        """
        rate = rate or self.rate
        weights = mean_weights(list(range(self.channels)), self.powers())
        found, done = torch.empty(ceil(self.samples * rate / self.rate)), 0
        for piece in resampled(self.waveform, self.rate, rate):
            found[done : done + piece.shape[1]] = weights @ piece
            done += piece.shape[1]
        return found

    def prepared(self) -> Tensor:
        """The waveform for the speech encoder: mono, 16 kHz, (samples,). Warns if it is silent."""
        waveform = self.mono(SAMPLE_RATE)
        silence_warning(waveform)
        return waveform

    def powers(self) -> Tensor:
        """Sum over all samples of the products of two channels, (channels, channels), float64."""
        total = torch.zeros(self.channels, self.channels, dtype=torch.float64)
        for piece in self.pieces():
            exact = piece.double()
            total += exact @ exact.T
        return total

    def mixed(self, names: list[str]) -> "Sound":
        """Mix many channels to one or two. `names` are FFmpeg's names of the channels."""
        if len(names) <= 2:
            return self
        weights = mixing_weights(names, self.powers())
        return Sound(SampleFile(weights @ piece for piece in self.pieces()), self.rate)


def check_rate(rate: int) -> None:
    """Raise `InputError` if no sound has a sample rate of `rate` Hz."""
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"The sample rate of the sound is {rate:,} Hz: use 8,000 to 192,000 Hz.")


def to_int16(waveform: Tensor) -> Tensor:
    """Samples of 16 bits (samples, channels), int16, of a waveform (channels, samples)."""
    return (waveform.T.clamp(-1, 1) * 32_767).round().short()


class SampleFile:
    """A waveform (channels, samples), float32, in a temporary file. `[..., a:b]` reads a part.

    In memory, an hour of stereo would take 1.4 GB. The file is deleted together with the object.
    """

    def __init__(self, pieces: Iterable[Tensor]):
        """Write `pieces`, at least one, each (channels, samples).

        Raises `InputError` if they cannot be written, for example because the disk is full.
        """
        self.file = TemporaryFile()  # noqa: SIM115
        samples = 0
        for piece in pieces:
            self._write(piece)
            samples += piece.shape[1]
        self.shape = torch.Size((piece.shape[0], samples))

    def _write(self, piece: Tensor) -> None:
        try:
            self.file.write(piece.T.contiguous().numpy().data)
        except OSError as error:
            raise InputError(
                f"The sound cannot be written to {gettempdir()} ({error.strerror}): make room "
                "there, or set TMPDIR to another folder."
            ) from error

    def shorten(self, samples: int) -> None:
        """Remove the last `samples` samples."""
        self.shape = torch.Size((self.shape[0], self.shape[1] - samples))

    def __getitem__(self, index: tuple[object, slice]) -> Tensor:
        channels, samples = self.shape
        start, stop, _ = index[1].indices(samples)
        part = torch.empty(max(stop - start, 0), channels)
        self.file.seek(start * channels * part.itemsize)
        self.file.readinto(part.numpy().data)
        return part.T


def for_aac(sound: Sound) -> Sound:
    """Make a sound suitable for AAC: at a sample rate of AAC, and not louder than full scale."""
    if sound.rate not in AAC_RATES:
        rate = max(AAC_RATES)
        sound = Sound(SampleFile(resampled(sound.waveform, sound.rate, rate)), rate)
    if (peak := sound.peak) > 1:
        sound = Sound(SampleFile(piece / peak for piece in sound.pieces()), sound.rate)
    return sound


def silence_warning(waveform: Tensor) -> str | None:
    """Return a warning if the prepared speech (samples,) is silent, else None. Logs it, too."""
    if (waveform - waveform.mean()).abs().max() > SILENCE:
        return None
    message = "The speech is silent: the mouth has nothing to follow. Choose a sound with speech."
    logger.warning(message)
    return message
