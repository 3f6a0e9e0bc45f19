"""How the frames of a video are encoded: which codec, and how much it may lose."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import av
import torch
from torch import Tensor

from ..errors import InputError
from ..network.config import FPS
from .picture import to_uint8

LEAST_CRF, MOST_CRF = 0, 40


class Codec(NamedTuple):
    """FFmpeg's name of an encoder, and its pixel format. `help` is for the user."""

    encoder: str
    pixels: str
    help: str


# ComfyUI reads white of H.264 as 255 / 256, also of lossless H.264. It reads PNG exactly.
CODECS = {
    "h264": Codec("libx264", "yuv420p", "the most common; half the resolution for colours"),
    "h264-444": Codec("libx264", "yuv444p", "all colours; for editors, and browsers like Chrome"),
    "lossless": Codec("png", "rgb24", "every pixel as it was decoded; a PNG for each frame"),
}


@dataclass(frozen=True)
class Encoding:
    """A codec, one of `CODECS`, and its constant rate factor: 0 is best, 40 is worst.

    `lossless` ignores the factor. Raises `InputError` if a value is not usable.
    """

    codec: str = "h264"
    crf: int = 12

    def __post_init__(self):
        if self.codec not in CODECS:
            raise InputError(f"There is no codec {self.codec}: choose {', '.join(CODECS)}.")
        if not LEAST_CRF <= self.crf <= MOST_CRF:
            raise InputError(
                f"The crf is {self.crf}: choose {LEAST_CRF} (best) to {MOST_CRF} (smallest file)."
            )

    @property
    def options(self) -> dict[str, str]:
        """FFmpeg's options. No frame refers to a later one, so encoded pieces can be joined."""
        if self.codec == "lossless":
            return {}
        return {"crf": f"{self.crf}", "tune": "zerolatency"}

    def encode(self, frames: Tensor) -> bytes:
        """Encode frames (frames, height, width, 3) in [0, 1], or uint8, as an MP4 without sound.

        On one machine, the same frames give the same bytes. No frames give no bytes.
        """
        if not len(frames):
            return b""
        file, codec = BytesIO(), CODECS[self.codec]
        whole = frames if frames.dtype == torch.uint8 else to_uint8(frames)
        pictures = whole.cpu().numpy()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream(codec.encoder, rate=FPS, options=self.options)
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width = pictures.shape[1:3]
            stream.pix_fmt = codec.pixels
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return file.getvalue()


STANDARD, LOSSLESS = Encoding(), Encoding("lossless")


def packets(piece: bytes) -> Iterator[av.Packet]:
    """Yield the encoded frames of a result of `Encoding.encode`, in order."""
    if piece:
        with av.open(BytesIO(piece), "r") as reader:
            yield from (packet for packet in reader.demux(video=0) if packet.dts is not None)
