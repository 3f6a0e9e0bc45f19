"""Reads a video file frame by frame, and writes changed frames without loss, with its sound.

`video` reads and writes at 25 frames a second. Here the frames keep their own times, and the planes
of the decoder: pixels that are not changed stay the same to the bit.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import cast

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import ColorRange
from torch import Tensor

from ..errors import InputError
from .outputs import cannot_write

WHITE = 65_535
RGB, SMALL_RGB = "gbrp16le", "rgb24"
"""Pictures are exchanged with 16 bits for each colour, or with 8 if the frame has no more.

FFmpeg 8.0 converts 10-bit video to rgb48le with wrong colours.
"""
CHROMA_REACH = 2
"""A sample of a smaller chroma plane colours the pixels of so many samples around it."""
TILE = 16
TURNS = {1: ("transpose", "cclock"), 2: ("rotate", "PI"), 3: ("transpose", "clock")}
"""The filter for so many quarter turns to the left."""
ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"qp": "0", "preset": "ultrafast"},
    "png": {},
    "ffv1": {"level": "3", "slices": "4"},
}
"""Lossless encoders. The first that knows the pixel format is used.

x264 is fast. PNG is for RGB: ComfyUI reads RGB of other encoders too dark. FFV1 knows every format.
"""
INTERLEAVING = {"max_interleave_delta": "1"}
"""Packets are written as they come. Otherwise, those of a long silence are held in memory."""


@dataclass(frozen=True)
class VideoFile:
    """A video file, or a part of it.

    `source` is a path or the content of a file. The part begins at `start` and has `duration`, both
    in seconds. If `duration` is 0, it goes to the end. All methods that read raise `InputError` if
    that fails.
    """

    source: str | BytesIO
    start: float = 0
    duration: float = 0

    @property
    def name(self) -> str:
        """What errors call it."""
        return "The video" if isinstance(self.source, BytesIO) else self.source

    def open(self) -> InputContainer:
        source = self.source
        return av.open(BytesIO(source.getvalue()) if isinstance(source, BytesIO) else source, "r")

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield the decoded frames, upright, with their times."""
        try:
            with self.open() as container:
                if not container.streams.video:
                    raise InputError(
                        f"{self.name} cannot be read as a video (it has no pictures): choose "
                        "another file."
                    )
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                first = ticks(self.start, stream)
                end = ticks(self.start + self.duration, stream)
                if first:
                    container.seek(first, stream=stream)
                decoded = container.decode(stream)
                for frame in upright(each for each in decoded if (each.pts or 0) >= first):
                    if self.duration and (frame.pts or 0) >= end:
                        break
                    yield frame
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.name} cannot be read as a video ({error.strerror}): save it as MP4."
            ) from error

    def pictures(self) -> Iterator[Tensor]:
        """Yield the frames as pictures; see `picture_of`."""
        return map(picture_of, self.frames())

    def count(self) -> int:
        """The number of frames. They are decoded to count them."""
        return sum(1 for _ in self.frames())


def ticks(seconds: float, of: av.VideoStream | av.VideoFrame) -> int:
    """A time in the unit of the time stamps of a stream or a frame, rounded down."""
    assert of.time_base is not None  # what is decoded has one
    return int(seconds / of.time_base)


def upright(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Turn the frames of a phone that was held upright, without a loss."""
    graph = None
    for frame in frames:
        if not frame.rotation:
            yield frame
            continue
        if graph is None:
            graph = av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            )
            turn = graph.add(*TURNS[round(frame.rotation / 90) % 4])
            graph.link_nodes(source, turn, graph.add("buffersink")).configure()
        graph.vpush(frame)
        yield graph.vpull()


def picture_of(frame: av.VideoFrame) -> Tensor:
    """A frame as a picture (height, width, 3), float32 in [0, 1]."""
    rgb = rgb_for(frame)
    white = WHITE if rgb == RGB else 255
    return torch.from_numpy(frame.to_ndarray(format=rgb).astype(np.float32) / white)


def rgb_for(frame: av.VideoFrame) -> str:
    """The pixel format in which a frame is read. FFmpeg makes 8 bits too dark in 16."""
    return SMALL_RGB if frame.format.components[0].bits <= 8 else RGB


def with_changes(
    frame: av.VideoFrame, before: Tensor, after: Tensor, window: tuple[slice, slice]
) -> av.VideoFrame:
    """A frame with the changes of its picture from `before` to `after`, (height, width, 3).

    Only pixels in the rows and columns of `window` may differ. The difference of the two pictures
    is added to the planes of the frame, so pixels that do not change stay the same to the bit. Near
    the edge of the window, the colour stays too if the frame keeps it in fewer samples.
    """
    planar = [part.plane for part in frame.format.components] == [*range(len(frame.planes))]
    if not planar or frame.format.is_rgb:
        frame = frame.reformat(format=rgb_for(frame))
    name, size = frame.format.name.replace("yuvj", "yuv"), (frame.height, frame.width)
    full = ColorRange.JPEG if name != frame.format.name else frame.color_range
    area = tuple(map(_whole_tiles, window, size))
    old, new = (
        _frame_of(picture[area]).reformat(
            format=name, dst_colorspace=frame.colorspace, dst_color_range=full
        )
        for picture in (before, after)
    )
    changed = av.VideoFrame(frame.width, frame.height, name)
    most = 2 ** frame.format.components[0].bits - 1
    for into, samples, gone, come in zip(*map(_planes, (changed, frame, old, new)), strict=True):
        steps = [round(side / samples) for side, samples in zip(size, into.shape, strict=False)]
        part = tuple(map(_narrowed, window, size, steps))
        there = tuple(
            slice(inside.start - around.start // step, inside.stop - around.start // step)
            for inside, around, step in zip(part, area, steps, strict=True)
        )
        into[:] = samples
        into[part] = (samples[part] + come[there].astype(np.int32) - gone[there]).clip(0, most)
    changed.pts, changed.time_base, changed.duration = frame.pts, frame.time_base, frame.duration
    changed.colorspace, changed.color_range = frame.colorspace, full
    return changed


def _whole_tiles(part: slice, length: int) -> slice:
    """The part with the rest of its first and last tile. FFmpeg's dither repeats with the tiles."""
    return slice(part.start // TILE * TILE, min(-(-part.stop // TILE) * TILE, length))


def _frame_of(picture: Tensor) -> av.VideoFrame:
    pixels = (picture * WHITE).round().cpu().numpy().astype(np.uint16)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=RGB)


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Views of the samples of each plane, (height, width, 1), or of all colours of RGB."""
    kind = np.dtype(np.uint8 if frame.format.components[0].bits <= 8 else np.uint16)
    colours = 3 if frame.format.name == SMALL_RGB else 1
    return [
        np.ndarray(
            (plane.height, plane.width, colours),
            kind,
            memoryview(plane),
            strides=(plane.line_size, colours * kind.itemsize, kind.itemsize),
        )
        for plane in frame.planes
    ]


def _narrowed(part: slice, length: int, step: int) -> slice:
    """The samples of a plane with one sample for `step` pixels that colour only pixels in `part`.

    `length` is the number of pixels. At the edge of the picture nothing lies outside.
    """
    if step == 1:
        return part
    first = -(-part.start // step) + CHROMA_REACH if part.start else 0
    last = part.stop // step - CHROMA_REACH if part.stop < length else -(-length // step)
    return slice(first, max(first, last))


def formats_of(encoder: str) -> list[str]:
    """The pixel formats that an encoder knows."""
    return [known.name for known in av.Codec(encoder, "w").video_formats or ()]


class LosslessWriter:
    """Writes frames of a video, in order, into a new MP4, with the sound of the video.

    The frames keep their times; those of a part of a video begin at 0. The sound is copied as it
    is. If there is an error inside the context, the file is deleted. Raises `InputError` if it
    cannot be written.
    """

    def __init__(self, path: Path, video: VideoFile):
        self.path, self.video = path, video
        self.stream: av.VideoStream | None = None

    def __enter__(self) -> "LosslessWriter":
        with ExitStack() as stack:
            self.source = stack.enter_context(self.video.open())
            self.target = stack.enter_context(av.open(str(self.path), "w", options=INTERLEAVING))
            self.opened = stack.pop_all()
        return self

    def write(self, frame: av.VideoFrame) -> None:
        """Append a frame, and the sound up to it."""
        try:
            if self.stream is None:
                self.stream = self._begin(frame)
            frame.pts = (frame.pts or 0) - ticks(self.video.start, frame)
            self._copy_sound(frame.time)
            frame.pict_type = 0  # the encoder chooses
            self.target.mux(self.stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise cannot_write(self.path, error) from error

    def __exit__(self, kind, *error) -> None:
        try:
            if kind is None and self.stream:
                self.target.mux(self.stream.encode())
                self._copy_sound()
            self.opened.close()
        except (av.FFmpegError, OSError) as failure:
            kind = type(failure)
            raise cannot_write(self.path, failure) from failure
        finally:
            if kind is not None:
                self.path.unlink(missing_ok=True)

    def _begin(self, frame: av.VideoFrame) -> av.VideoStream:
        """Add the streams for frames like this one, and for the sound."""
        like, pixels = self.source.streams.video[0], frame.format.name
        encoder = next(name for name in ENCODERS if pixels in formats_of(name))
        options = ENCODERS[encoder]
        stream = cast(
            av.VideoStream, self.target.add_stream(encoder, rate=like.average_rate, options=options)
        )
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = frame.width, frame.height, pixels
        context.time_base = frame.time_base or context.time_base
        context.color_primaries, context.color_trc = like.color_primaries, like.color_trc
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        self.sounds = {
            sound.index: self.target.add_stream_from_template(sound)
            for sound in self.source.streams.audio
            if sound.codec_context is not None
        }
        self.packets = self._sound_packets()
        self.packet = next(self.packets, None)
        return stream

    def _sound_packets(self) -> Iterator[tuple[float, av.Packet]]:
        """Yield the packets of the sound, and their times in the new file."""
        start, duration = self.video.start, self.video.duration
        if not self.sounds:
            return  # demux would take all streams
        if start:
            self.source.seek(int(start * av.time_base))
        for packet in self.source.demux([self.source.streams[index] for index in self.sounds]):
            if packet.pts is None or packet.dts is None:
                continue  # the end of a stream
            time = float(packet.pts * packet.time_base) - start
            if duration and time >= duration:
                return
            if not start or time >= 0:
                shift = round(start / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self.sounds[packet.stream_index]
                yield time, packet

    def _copy_sound(self, until: float = float("inf")) -> None:
        """Write the sound up to `until` seconds."""
        while self.packet and self.packet[0] <= until:
            self.target.mux(self.packet[1])
            self.packet = next(self.packets, None)
