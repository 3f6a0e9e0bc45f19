"""Videos of given pictures with a tone, as files of many kinds."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICKS = 90_000
"""Units of time in a second."""


def write_film(
    path: Path,
    pictures: np.ndarray,
    rate: Fraction | int = 25,
    encoder: str = "libx264",
    pixels: str = "yuv420p",
    *,
    seconds: float = 1,
    times: Sequence[float] | None = None,
    **options: str,
) -> Path:
    """Pictures (frames, height, width, 3) uint8, with a tone that lasts so many seconds.

    `times` are the seconds of the frames, if they do not come at the `rate`. `options` are those of
    the encoder.
    """
    height, width = pictures.shape[1:3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = Fraction(1, TICKS)
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.time_base = Fraction(1, TICKS)
            frame.pts = round(TICKS * (times[number] if times else number / rate))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        wave = np.sin(np.arange(48_000 * seconds, dtype=np.float32) / 20)[None]
        heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        heard.sample_rate, heard.pts = 48_000, 0
        container.mux(sound.encode(heard))
        container.mux(sound.encode())
    return path
