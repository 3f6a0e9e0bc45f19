"""Sound that is read once, and then both animated and heard."""

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
from .channels import heard, mean
from .resample import resampled

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
RATES = (1000, 1_000_000)
SILENCE = 1e-4
"""What is nowhere louder is silent: 80 dB below full scale, three steps of 16 bits."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sound:
    """`waveform` (channels, samples), float32, at `rate` Hz; full scale is 1.

    Raises `InputError` if no sound has such a rate.
    """

    waveform: "Tensor | SampleFile"
    rate: int

    def __post_init__(self):
        check_rate(self.rate)

    @property
    def channels(self) -> int:
        return self.waveform.shape[0]

    @property
    def samples(self) -> int:
        return self.waveform.shape[1]

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    @property
    def peak(self) -> float:
        """The largest absolute sample, 0 if there is none."""
        return max(piece.abs().max().item() if piece.numel() else 0 for piece in self.pieces())

    def cut(self, start: float, stop: float) -> Tensor:
        """What is heard from `start` to `stop` seconds, (channels, samples).

        There is silence before the beginning and after the end. Cuts that follow one another
        neither overlap nor leave a gap.
        """
        first, last = round(start * self.rate), round(stop * self.rate)
        part = self.waveform[:, max(first, 0) : max(last, 0)]
        before = min(max(-first, 0), last - first)
        return F.pad(part, (before, last - first - before - part.shape[1]))

    def pieces(self) -> Iterator[Tensor]:
        """All of it, some seconds at a time."""
        return resampled(self.waveform, self.rate, self.rate)

    def mono(self, rate: int | None = None) -> Tensor:
        """The mean of the channels, (samples,), at another rate if one is given."""
        rate = rate or self.rate
        weights = mean(list(range(self.channels)), self.powers())
        found, done = torch.empty(ceil(self.samples * rate / self.rate)), 0
        for piece in resampled(self.waveform, self.rate, rate):
            found[done : done + piece.shape[1]] = weights @ piece
            done += piece.shape[1]
        return found

    def prepared(self) -> Tensor:
        """(samples,) at 16 kHz, mono, for the speech encoder; a warning tells if it is silent."""
        waveform = self.mono(SAMPLE_RATE)
        silence_warning(waveform)
        return waveform

    def powers(self) -> Tensor:
        """Sums of the products of samples, (channels, channels), float64."""
        pieces = (piece.double() for piece in self.pieces())
        return sum(piece @ piece.T for piece in pieces)

    def mixed(self, names: list[str]) -> "Sound":
        """One or two channels of many, which FFmpeg calls by these names."""
        if len(names) <= 2:
            return self
        weights = heard(names, self.powers())
        return Sound(SampleFile(weights @ piece for piece in self.pieces()), self.rate)


def check_rate(rate: int) -> None:
    """Raise `InputError` if no sound has so many samples a second."""
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"The sound has {rate:,} samples a second: use one with 8,000 to 192,000.")


class SampleFile:
    """Float32 (channels, samples) in a temporary file, of which parts are read by `[..., a:b]`.

    An hour of stereo would take 1.4 GB of memory. The file goes with the object.
    """

    def __init__(self, pieces: Iterable[Tensor]):
        """`pieces` (channels, samples) of at least one sound."""
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
                f"The sound has no room in {gettempdir()} ({error.strerror}): make room there, or "
                "name another folder in TMPDIR."
            ) from error

    def shorten(self, samples: int) -> None:
        """Leave out the last samples."""
        self.shape = torch.Size((self.shape[0], self.shape[1] - samples))

    def __getitem__(self, index: tuple[object, slice]) -> Tensor:
        channels, samples = self.shape
        start, stop, _ = index[1].indices(samples)
        part = torch.empty(max(stop - start, 0), channels)
        self.file.seek(start * channels * part.itemsize)
        self.file.readinto(part.numpy())
        return part.T


def for_aac(sound: Sound) -> Sound:
    """The same as AAC can have it: at one of its rates, and nowhere louder than full scale."""
    if sound.rate not in AAC_RATES:
        rate = max(AAC_RATES)
        sound = Sound(SampleFile(resampled(sound.waveform, sound.rate, rate)), rate)
    if (peak := sound.peak) > 1:
        sound = Sound(SampleFile(piece / peak for piece in sound.pieces()), sound.rate)
    return sound


def silence_warning(waveform: Tensor) -> str | None:
    """What is wrong with prepared speech (samples,) that is silent; it goes into the log, too."""
    if (waveform - waveform.mean()).abs().max() > SILENCE:
        return None
    message = "The speech is silent: the mouth follows nothing. Choose a sound in which one speaks."
    logger.warning(message)
    return message
