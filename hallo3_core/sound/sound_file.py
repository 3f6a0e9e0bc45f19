"""Sound and video files, pipes and standard input, read as a `Sound`."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import av
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition
from torch import Tensor

from ..errors import InputError
from ..network.config import FPS
from .sound import SILENCE, SampleFile, Sound

SHORTEST_GAP = 0.5 / FPS
LONGEST_GAP = 600.0
"""Seconds; where the time of a file jumps further, or back, its clock was set anew."""
TAGS = (b"ID3", b"TAG", b"APE")
"""How tags begin; they lie between MP3s that were joined."""
WINDOWS_MEDIA = ("wmav1", "wmav2")
"""Their decoders leave out two frames at the beginning, of which one has sound."""
LAST_FRAME = 2048
"""Samples that an encoder fills up with at most."""

logger = logging.getLogger(__name__)


def read_sound(path: Path) -> Sound:
    """The sound of a file that FFmpeg reads, mono or stereo, as long as the file's own clock says.

    It is that of the default track, or of the next one that is not silent. What is damaged is left
    out, with a warning. Raises `InputError` if there is no sound, or numbers that are not finite.
    """
    silent = []
    try:
        with _seekable(path) as file:
            with _open(file) as container:
                tracks = _tracks(container)
            for track in tracks:
                file.seek(0)
                with _open(file) as container:
                    sound = SoundTrack(container, track, path).read()
                if sound.peak > SILENCE:
                    if silent:
                        logger.warning("%s: a silent track was passed over.", path)
                    return sound
                silent.append(sound)
    except FileNotFoundError:
        raise InputError(f"There is no sound file {path}: check the path.") from None
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} is no sound or video file that can be read ({error.strerror}): save it as WAV."
        ) from error
    if not silent:
        raise InputError(f"{path} has no sound track: choose a file with speech in it.")
    longest = max(silent, key=lambda sound: sound.samples)
    if not longest.samples:
        raise InputError(f"The sound in {path} has no length: use a file with speech in it.")
    return longest


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """The file, or a copy of what comes out of a pipe, which is read once."""
    with path.open("rb") as file:
        if file.seekable():
            yield file
            return
        with TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield copy


def _open(file: BinaryIO) -> InputContainer:
    """The open file rather than its name, in which FFmpeg would take a colon for a protocol."""
    return av.open(file, metadata_errors="ignore")


def _tracks(container: InputContainer) -> list[int]:
    """The numbers of the sound tracks that can be decoded, default ones first."""
    streams = [stream for stream in container.streams.audio if stream.codec_context]
    streams.sort(key=lambda stream: not stream.disposition & Disposition.default)
    return [stream.index for stream in streams]


class Clock:
    """Where the time stamps of a file say that its sound belongs."""

    def __init__(self, container: InputContainer):
        flags, start = container.format.flags, (container.start_time or 0) / av.time_base
        restarts = flags & Flags.ts_discont.value
        self.ticks = restarts or not flags & Flags.generic_index.value
        """Files of sound alone have no clock; their time is counted from what is in them."""
        self.zero = start if restarts or start > LONGEST_GAP else 0.0

    def gap(self, time: float | None, seconds: float) -> float:
        """Seconds of silence between the first `seconds` and what is to be heard at `time`."""
        if not self.ticks or time is None:
            return 0
        gap = time - self.zero - seconds
        if SHORTEST_GAP < gap < LONGEST_GAP:
            return gap
        if not -1 < gap < LONGEST_GAP:
            self.zero += gap
        return 0

    def end(self, stream: AudioStream) -> float:
        """When a track ends, in seconds, 0 if that is not known."""
        if not self.ticks or not stream.duration:
            return 0
        return float((stream.start_time or 0) + stream.duration) * stream.time_base - self.zero


class SoundTrack:
    """Decodes one track of an open file."""

    def __init__(self, container: InputContainer, index: int, path: Path):
        self.container, self.path = container, path
        self.stream: AudioStream = container.streams[index]
        self.clock = Clock(container)
        self.samples, self.broken = 0, 0
        self.damaged = False
        frames = self._frames()
        first = list(islice(frames, 1))
        self.frames = chain(first, frames)
        (kind,) = first or [self.stream]
        self.rate, self.layout = kind.rate, kind.layout

    def read(self) -> Sound:
        waveform = SampleFile(self._pieces())
        end = round(self.clock.end(self.stream) * self.rate)
        filled = self.samples - end
        if end and 0 < filled < LAST_FRAME:
            waveform.shorten(filled)
        if self.broken:
            raise InputError(
                f"{self.path} has {self.broken:,} samples that are no numbers (NaN or infinite): "
                "export it again."
            )
        sound = Sound(waveform, self.rate)
        if self.damaged:
            logger.warning(
                "%s is damaged or cut off: %.2f s of sound could be read.", self.path, sound.seconds
            )
        return sound.mixed([channel.name for channel in self.layout.channels])

    def _pieces(self) -> Iterator[Tensor]:
        """(channels, samples) of each frame, and silence where there is none."""
        yield torch.zeros(self.layout.nb_channels, 0)
        resampler, setup = None, None
        for frame in self.frames:
            gap = round(self.clock.gap(frame.time, self.samples / self.rate) * self.rate)
            self.samples += gap
            yield torch.zeros(self.layout.nb_channels, gap)
            # what changes on the way goes on as it began
            if setup != (setup := (frame.format.name, frame.layout.name, frame.rate)):
                resampler = AudioResampler("flt", self.layout, self.rate)
            yield from map(self._counted, resampler.resample(frame))
        if resampler:
            yield from map(self._counted, resampler.resample(None))

    def _counted(self, frame: AudioFrame) -> Tensor:
        """Packed samples: PyAV reads past the end of 8 planes."""
        piece = torch.from_numpy(frame.to_ndarray()).view(-1, self.layout.nb_channels).T
        self.samples += piece.shape[1]
        self.broken += (~piece.isfinite()).sum().item()
        return piece

    def _frames(self) -> Iterator[AudioFrame]:
        frames = self._decoded()
        if self.stream.codec_context.name in WINDOWS_MEDIA:
            self.stream.codec_context.flags2 |= Flags2.skip_manual
            for first in islice(frames, 1):
                self.clock.zero += first.samples / first.rate
        return frames

    def _decoded(self) -> Iterator[AudioFrame]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if bytes(packet)[:3] not in TAGS:
                    yield from packet.decode()
            except av.FFmpegError:
                self.damaged = True
