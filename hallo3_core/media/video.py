"""Reading and writing of video files with PyAV, and writing of sound files."""

import os
import wave
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..network.config import FPS
from ..sound.sound import Sound, for_aac, to_int16
from .encoding import STANDARD, Encoding, packets
from .frames import VideoFile
from .outputs import (
    cannot_write,
    check_file,
    claimed,
    new_file,
    place,
    temporary,
    undisturbed,
    write_file,
)

FRAGMENTS = {
    "movflags": "delay_moov",
    "frag_duration": "1",
    "max_interleave_delta": "1",
    "flush_packets": "1",
}
"""With these options, a frame is in the file and plays as soon as the next one is written."""
HALF_FRAME = 0.5 / FPS


def save_sound(waveform: Tensor, rate: int, path: Path, overwrite: bool = False) -> None:
    """Write a waveform (channels, samples) in [-1, 1] as a 16-bit WAV; see `write_file`."""
    content = BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(len(waveform))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(to_int16(waveform).contiguous().numpy().tobytes())
    write_file(path, content.getvalue(), overwrite)


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video file at 25 fps, upright, (height, width, 3) uint8.

    Raises `InputError` if it cannot be read as a video.
    """
    yield from at_25_fps(VideoFile(str(path.absolute())).frames())


def at_25_fps(frames: Iterable[av.VideoFrame], begin: float = 0) -> Iterator[np.ndarray]:
    """Yield what `frames` show at 25 fps from `begin` seconds on, (height, width, 3) uint8."""
    count, shown = 0, None
    for frame in frames:
        while shown is not None and count / FPS < frame.time - begin - HALF_FRAME:
            yield shown.to_ndarray(format="rgb24")
            count += 1
        shown = frame
    if shown is not None:
        yield shown.to_ndarray(format="rgb24")


def check_output(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Raise `InputError` if no MP4 can or may be written to `path`; see `check_file`."""
    if path.suffix.lower() != ".mp4":
        raise InputError(f"The output {path} does not end in .mp4: give a name that does.")
    check_file(path, inputs, overwrite)


class VideoWriter:
    """Writes an MP4 (H.264 and AAC, 25 fps) piece by piece, with a sound track.

    The pieces go into a new fragmented file beside `path`: `x.unfinished.mp4`, or the same with a
    number. It plays even if the program is killed. At the end of the context it becomes an ordinary
    MP4 named `path`. After an error, the MP4 keeps the unfinished name. `saved` is the path of the
    result. If nothing was written, no file is left.

    The writer claims `path` inside the context. It raises `InputError` if another job has claimed
    it, or if `check_output` does. If another file appears at `path` during the job, and `overwrite`
    is False, the video takes the next free name.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        sound: Sound,
        overwrite: bool = False,
        encoding: Encoding = STANDARD,
    ):
        check_output(path, overwrite=overwrite)
        self.path, self.overwrite, self.encoding = path.absolute(), overwrite, encoding
        self.black = encoding.encode(torch.zeros(1, height, width, 3))
        self.heard = for_aac(sound)
        self.frames = 0
        self.done = 0, 0  # the number of frames in the partial file, and its size in bytes
        self.saved: Path | None = None

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            stack.enter_context(claimed(self.path))
            self.partial = new_file(self.path.with_suffix(".unfinished.mp4"))
            self.claim = stack.pop_all()
        self.container = av.open(str(self.partial), "w", options=FRAGMENTS)
        self.pictures = PictureTrack(self.container, like=self.black)
        self.sound = SoundWriter(self.container, self.heard)
        return self

    def write(self, frames: Tensor) -> None:
        """Append frames (frames, height, width, 3) in [0, 1], and the sound for them."""
        self.append(self.encoding.encode(frames))

    def append(self, piece: bytes) -> None:
        """Append a result of `Encoding.encode` without encoding it again, and the sound for it.

        Raises `InputError` if the file cannot be written.
        """
        try:
            for packet in packets(piece):
                self.pictures.write(packet, self.frames)
                self.frames += 1
            self.sound.write(until=self.seconds)
        except (av.FFmpegError, OSError) as error:
            raise cannot_write(self.path, error) from error
        self.done = self.frames, self.partial.stat().st_size

    def __exit__(self, kind, *error) -> None:
        with undisturbed(), self.claim:
            try:
                self._finish(whole=kind is None)
            except (av.FFmpegError, OSError) as failure:
                if not self.frames:
                    raise cannot_write(self.path, failure) from failure
                raise InputError(
                    f"{self.path} could not be finished ({failure.strerror}): make room; the "
                    f"finished part is in {self.partial}, which plays."
                ) from failure

    def _finish(self, whole: bool) -> None:
        """Turn the partial file into an ordinary MP4. If that fails, the partial file stays."""
        try:
            self._close()
        finally:
            if self.frames:
                self.saved = self.partial
            else:
                self.partial.unlink()
        if not self.frames:
            return
        path = self.partial
        with temporary(self.path) as ordinary:
            remux(self.partial, ordinary)
            if whole:
                path = self.path if self.overwrite else new_file(self.path)
            place(ordinary, path, overwrite=True)
        if whole:
            self.partial.unlink()
            self.saved = path

    def _close(self) -> None:
        """Close the partial file. If the disk is full, it ends with the last complete piece."""
        try:
            if self.frames:
                self.sound.finish()
            self.container.close()
        except (av.FFmpegError, OSError):
            with suppress(av.FFmpegError, OSError):
                self.container.close()
            self.frames, size = self.done
            os.truncate(self.partial, size)
            raise


class PictureTrack:
    """Writes encoded frames into a container, one after the other."""

    def __init__(self, container: av.container.OutputContainer, like: bytes):
        self.container = container
        with av.open(BytesIO(like)) as piece:
            self.stream = container.add_stream_from_template(piece.streams.video[0])

    def write(self, packet: av.Packet, index: int) -> None:
        """Write a packet as the frame `index` of the video. Its own time stamp is replaced."""
        packet.pts = packet.dts = round(index / (FPS * packet.time_base))
        packet.stream = self.stream
        self.container.mux(packet)


class SoundWriter:
    """Writes a sound into a container as AAC, as far as the video goes."""

    def __init__(self, container: av.container.OutputContainer, sound: Sound):
        self.container = container
        self.sound = sound
        self.stream = container.add_stream("aac", rate=sound.rate, layout=sound.layout)
        self.written = 0

    def write(self, until: float) -> None:
        """Encode the sound up to `until` seconds."""
        samples = self.sound.waveform[:, self.written : round(until * self.sound.rate)]
        if samples.shape[1]:
            packed = samples.T.reshape(1, -1).contiguous().numpy()
            frame = av.AudioFrame.from_ndarray(packed, "flt", self.sound.layout)
            frame.rate = self.sound.rate
            frame.pts = self.written
            self.container.mux(self.stream.encode(frame))
            self.written += samples.shape[1]

    def finish(self) -> None:
        """Write the samples that the encoder still holds."""
        self.container.mux(self.stream.encode())


def remux(source: Path, target: Path) -> None:
    """Copy a fragmented MP4 into an ordinary one, with the index at the beginning."""
    with (
        av.open(str(source)) as reader,
        av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as writer,
    ):
        streams = [writer.add_stream_from_template(stream) for stream in reader.streams]
        for packet in reader.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                writer.mux(packet)
