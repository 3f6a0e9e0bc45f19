"""Reading the sound of sound files, video files, pipes and standard input."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
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
"""Seconds. If the time stamps jump further than this, or back, the clock was restarted."""
TAGS = (b"ID3", b"TAG", b"APE")
"""The first bytes of tags. Tags are found between MP3s that were joined into one file."""
WINDOWS_MEDIA = ("wmav1", "wmav2")
"""Codecs whose decoders skip the first two frames, although one of these has sound."""
LAST_FRAME = 2048
"""An encoder adds fewer samples than this to fill its last frame."""

logger = logging.getLogger(__name__)


def read_sound(path: Path) -> Sound:
    """Read the sound of any file that FFmpeg can read, as mono or stereo.

    Its length follows the time stamps of the file. The default track is used or, if it is silent,
    the next one that is not. Damaged parts are skipped, with a warning. Raises `InputError` if the
    file cannot be read, has no sound, or has samples that are NaN or infinite.
    """
    silent: list[Sound] = []
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
                        logger.warning("%s: a silent sound track was skipped.", path)
                    return sound
                silent.append(sound)
    except FileNotFoundError:
        raise InputError(f"There is no sound file {path}: check the path.") from None
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a sound or video file ({error.strerror}): save it as WAV."
        ) from error
    if not silent:
        raise InputError(f"{path} has no sound track: choose a file with speech in it.")
    longest = max(silent, key=lambda sound: sound.samples)
    if not longest.samples:
        raise InputError(f"The sound in {path} is empty: use a file with speech in it.")
    return longest


def seconds_in_header(path: Path) -> float:
    """How long a file with sound is, as its header says. 0 if it does not say, or has no sound."""
    with suppress(av.FFmpegError, OSError), path.open("rb") as file, _open(file) as container:
        if container.streams.audio:
            return (container.duration or 0) / av.time_base
    return 0.0


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """Open a file. A pipe can be read only once, so it is copied to a temporary file."""
    with path.open("rb") as file:
        if file.seekable():
            yield file
            return
        with TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield copy


def _open(file: BinaryIO) -> InputContainer:
    """Open the container of an open file. In a name, FFmpeg would take a colon for a protocol."""
    return av.open(file, "r", metadata_errors="ignore")


def _tracks(container: InputContainer) -> list[int]:
    """The indices of the sound tracks that can be decoded, default tracks first."""
    streams = [stream for stream in container.streams.audio if stream.codec_context]
    streams.sort(key=lambda stream: not stream.disposition & Disposition.default)
    return [stream.index for stream in streams]


def _has(flags: int, flag: Enum) -> bool:
    return bool(flags & flag.value)


class Clock:
    """Finds gaps in the sound of a file from its time stamps."""

    def __init__(self, container: InputContainer):
        flags, start = container.format.flags, (container.start_time or 0) / av.time_base
        restarts = _has(flags, Flags.ts_discont)
        self.ticks = restarts or not _has(flags, Flags.generic_index)
        """Whether the file has time stamps. In plain sound files, time is counted in samples."""
        self.zero = start if restarts or start > LONGEST_GAP else 0.0

    def gap(self, time: float | None, seconds: float) -> float:
        """Seconds of silence between the sound so far, `seconds` long, and a frame at `time`."""
        if not self.ticks or time is None:
            return 0
        gap = time - self.zero - seconds
        if SHORTEST_GAP < gap < LONGEST_GAP:
            return gap
        if not -1 < gap < LONGEST_GAP:
            self.zero += gap
        return 0

    def end(self, stream: AudioStream) -> float:
        """The time at which a track ends, in seconds, or 0 if unknown."""
        if not self.ticks or not stream.duration or not stream.time_base:
            return 0
        return float((stream.start_time or 0) + stream.duration) * stream.time_base - self.zero


class SoundTrack:
    """Decodes one sound track of an open file."""

    def __init__(self, container: InputContainer, index: int, path: Path):
        self.container, self.path = container, path
        self.stream = next(track for track in container.streams.audio if track.index == index)
        self.clock = Clock(container)
        self.samples, self.broken = 0, 0
        self.damaged = False
        frames = self._frames()
        first = list(islice(frames, 1))
        self.frames = chain(first, frames)
        kind: AudioFrame | AudioStream = first[0] if first else self.stream
        self.rate, self.layout = kind.rate, kind.layout

    def read(self) -> Sound:
        """Decode the whole track. Raises `InputError` if samples are NaN or infinite."""
        waveform = SampleFile(self._pieces())
        end = round(self.clock.end(self.stream) * self.rate)
        filled = self.samples - end
        if end and 0 < filled < LAST_FRAME:
            waveform.shorten(filled)
        if self.broken:
            raise InputError(
                f"{self.path} has {self.broken:,} samples that are NaN or infinite: export it "
                "again."
            )
        sound = Sound(waveform, self.rate)
        if self.damaged:
            logger.warning(
                "%s is damaged or cut off: only %.2f s of sound could be read.",
                self.path,
                sound.seconds,
            )
        return sound.mixed([channel.name for channel in self.layout.channels])

    def _pieces(self) -> Iterator[Tensor]:
        """Yield (channels, samples) for each frame, and silence for each gap."""
        yield torch.zeros(self.layout.nb_channels, 0)
        resampler, setup = None, None
        for frame in self.frames:
            gap = round(self.clock.gap(frame.time, self.samples / self.rate) * self.rate)
            self.samples += gap
            yield torch.zeros(self.layout.nb_channels, gap)
            # if layout or rate change later, they are converted to those of the first frame
            now = frame.format.name, frame.layout.name, frame.rate
            if resampler is None or setup != now:
                resampler, setup = AudioResampler("flt", self.layout, self.rate), now
            yield from map(self._counted, resampler.resample(frame))
        if resampler:
            yield from map(self._counted, resampler.resample(None))

    def _counted(self, frame: AudioFrame) -> Tensor:
        """Return the samples of a packed frame; PyAV reads past the end of 8 planes."""
        piece = torch.from_numpy(frame.to_ndarray()).view(-1, self.layout.nb_channels).T
        self.samples += piece.shape[1]
        self.broken += int((~piece.isfinite()).sum())
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
