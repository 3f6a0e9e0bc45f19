"""Sound and video files, read and written with PyAV."""

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler
from torch import Tensor
from torchaudio.functional import resample

from .config import FPS
from .errors import InputError

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FRAGMENTS = {"movflags": "delay_moov", "frag_duration": "200000", "flush_packets": "1"}
"""A piece of the file is complete every 0.2 s, and plays."""
HALF_FRAME = 0.5 / FPS

H264 = {"crf": "17", "tune": "zerolatency"}
"""Without latency a frame is in the file as soon as it is written, or nearly."""


def read_speech(path: Path) -> tuple[Tensor, int]:
    """The first sound track of a sound or video file: mono (1, samples) float32, and its rate.

    Raises `InputError` if there is none, or nothing in it, or numbers that are not finite.
    """
    with _open_sound(path) as container:
        rate = container.streams.audio[0].rate
        chunks = [chunk.mean(axis=1) for chunk in _decode(container, path, AudioResampler("flt"))]
    samples = torch.from_numpy(np.concatenate(chunks)) if chunks else torch.zeros(0)
    if not len(samples):
        raise InputError(f"The sound in {path} has no length: use a file with speech in it.")
    broken = (~samples.isfinite()).sum().item()
    if broken:
        raise InputError(
            f"{path} has {broken:,} samples that are no numbers (NaN or infinite): export it again."
        )
    return samples[None], rate


def save_sound(waveform: Tensor, rate: int, path: Path) -> None:
    """(1, samples) in [-1, 1] as a WAV of 16 bits."""
    samples = (waveform[0] * 32_767).round().short()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.numpy().tobytes())


def _open_sound(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(str(path))
    except FileNotFoundError:
        raise InputError(f"There is no sound file {path}: check the path.") from None
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} is no sound or video file that can be read ({error.strerror}): save it as WAV."
        ) from error
    if not container.streams.audio:
        container.close()
        raise InputError(f"{path} has no sound track: choose a file with speech in it.")
    return container


def _decode(container, path: Path, resampler: AudioResampler) -> Iterator[np.ndarray]:
    """Chunks of the first sound track as (samples, channels) float32.

    `resampler` must give packed samples: PyAV reads past the end of 8 planes.
    """
    try:
        for frame in container.decode(audio=0):
            yield from map(_samples, resampler.resample(frame))
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"The sound in {path} is damaged or changes its format on the way ({error}): "
            "save it as WAV."
        ) from error
    yield from map(_samples, resampler.resample(None))


def _samples(frame: av.AudioFrame) -> np.ndarray:
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels)


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a video file at 25 fps, (height, width, 3) uint8.

    Raises `InputError` if it is no video.
    """
    count, shown = 0, None
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                while shown is not None and count / FPS < frame.time - HALF_FRAME:
                    yield shown.to_ndarray(format="rgb24")
                    count += 1
                shown = frame
            if shown is not None:
                yield shown.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise InputError(
            f"{path} is no video that can be read ({error}): save it as MP4."
        ) from error


class Sound(NamedTuple):
    """A sound track to be written: packed float samples, at a rate and in a layout that AAC has."""

    rate: int
    layout: str
    chunks: Iterator[np.ndarray]


def sound_of_file(path: Path) -> Sound:
    """The first sound track of a file as it is; more than two channels become stereo."""
    container = _open_sound(path)
    stream = container.streams.audio[0]
    layout = "mono" if stream.layout.nb_channels == 1 else "stereo"
    rate = stream.rate if stream.rate in AAC_RATES else max(AAC_RATES)
    return Sound(rate, layout, _decode(container, path, AudioResampler("flt", layout, rate)))


def sound_of_waveform(waveform: Tensor, rate: int) -> Sound:
    """A waveform (channels, samples); more than two channels become mono."""
    if waveform.shape[0] > 2:
        waveform = waveform.mean(0, keepdim=True)
    if rate not in AAC_RATES:
        waveform = resample(waveform, rate, max(AAC_RATES))
        rate = max(AAC_RATES)
    layout = "mono" if waveform.shape[0] == 1 else "stereo"
    return Sound(rate, layout, iter([waveform.T.float().cpu().numpy()]))


def check_output(path: Path) -> None:
    """Raise `InputError` if no video can be written to `path`."""
    if path.suffix.lower() != ".mp4" or path.is_dir():
        raise InputError(f"The output {path} is a folder or does not end in .mp4: name a file so.")
    if not path.parent.is_dir():
        raise InputError(
            f"There is no folder {path.parent} for the output: make it, or choose another."
        )


def _cannot_write(path: Path, error: Exception) -> InputError:
    return InputError(
        f"Nothing can be written to {path.parent} ({error.strerror}): "
        "choose a folder that is yours and has room."
    )


class VideoWriter:
    """Writes an MP4 (H.264 yuv420p and AAC, 25 fps) piece by piece, with a sound track.

    The pieces go into a fragmented file beside `path`, which plays even if the program is killed.
    Leaving the context, also by an error, makes an ordinary MP4 of what has been written; if
    nothing has, no file is left.
    """

    def __init__(self, path: Path, height: int, width: int, sound: Sound):
        check_output(path)
        self.path = path
        self.partial = path.with_suffix(".partial.mp4")
        self.frames = 0
        self.container = av.open(str(self.partial), "w", options=FRAGMENTS)
        self.pictures = PictureTrack(self.container, height, width)
        self.sound = SoundTrack(self.container, sound)
        try:
            self.container.start_encoding()
        except (av.FFmpegError, OSError) as error:
            raise _cannot_write(path, error) from error

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    def write(self, frames: Tensor) -> None:
        """Append (frames, height, width, 3) in [0, 1], and the sound that goes with them."""
        try:
            for frame in frames:
                self.pictures.write(frame[None])
                self.frames += 1
            self.sound.write(until=self.seconds)
        except (av.FFmpegError, OSError) as error:
            raise _cannot_write(self.path, error) from error

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *error) -> None:
        try:
            if self.frames:
                self.pictures.finish()
                self.sound.write(until=self.seconds)
                self.sound.finish()
            self.container.close()
            if self.frames:
                _remux(self.partial, self.path)
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.path} could not be finished ({error.strerror}): make room; what is done "
                f"is in {self.partial}, which plays."
            ) from error
        self.partial.unlink()


class PictureTrack:
    """Puts pictures into a container, as H.264."""

    def __init__(self, container: av.container.OutputContainer, height: int, width: int):
        self.container = container
        self.stream = container.add_stream("libx264", rate=FPS, options=H264)
        self.stream.height, self.stream.width = height, width
        self.stream.pix_fmt = "yuv420p"

    def write(self, frames: Tensor) -> None:
        pictures = (frames * 255).round().to(torch.uint8).cpu().numpy()
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        self.container.mux(self.stream.encode())


class SoundTrack:
    """Puts a sound into a container, as AAC, as far as the video goes."""

    def __init__(self, container: av.container.OutputContainer, sound: Sound):
        self.container = container
        self.sound = sound
        self.stream = container.add_stream("aac", rate=sound.rate, layout=sound.layout)
        self.left = np.zeros((0, self.stream.layout.nb_channels), np.float32)
        self.written = 0

    def write(self, until: float) -> None:
        """Encode what is heard before `until` seconds."""
        wanted = round(until * self.sound.rate) - self.written
        while len(self.left) < wanted and (chunk := next(self.sound.chunks, None)) is not None:
            self.left = np.concatenate([self.left, chunk])
        now, self.left = self.left[:wanted], self.left[wanted:]
        if len(now):
            packed = np.ascontiguousarray(now.clip(-1, 1)).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, "flt", self.sound.layout)
            frame.rate = self.sound.rate
            frame.pts = self.written
            self.container.mux(self.stream.encode(frame))
            self.written += len(now)

    def finish(self) -> None:
        self.container.mux(self.stream.encode())


def write_pictures(path: Path, frames: Tensor) -> None:
    """(frames, height, width, 3) in [0, 1] as an MP4 without sound, to be joined later."""
    with av.open(str(path), "w") as container:
        track = PictureTrack(container, *frames.shape[1:3])
        track.write(frames)
        track.finish()


def join(parts: list[Path], path: Path, sound: Sound) -> None:
    """Put what `write_pictures` has written one after the other, with a sound track."""
    frames = 0
    with (
        av.open(str(parts[0])) as first,
        av.open(str(path), "w", options={"movflags": "faststart"}) as container,
    ):
        pictures = container.add_stream_from_template(first.streams.video[0])
        track = SoundTrack(container, sound)
        for part in parts:
            with av.open(str(part)) as reader:
                start = frames
                for packet in reader.demux(video=0):
                    if packet.dts is None:
                        continue
                    offset = int(start / (FPS * packet.time_base))
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = pictures
                    container.mux(packet)
                    frames += 1
            track.write(until=frames / FPS)
        track.finish()


def _remux(source: Path, target: Path) -> None:
    """Copy a fragmented MP4 into an ordinary one whose index comes first."""
    whole = target.with_suffix(".whole.mp4")
    try:
        with (
            av.open(str(source)) as reader,
            av.open(str(whole), "w", options={"movflags": "faststart"}) as writer,
        ):
            streams = [writer.add_stream_from_template(stream) for stream in reader.streams]
            for packet in reader.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    writer.mux(packet)
        whole.replace(target)
    finally:
        whole.unlink(missing_ok=True)
