"""Writes a video for editors: as ProRes, or as a PNG for each frame."""

from collections.abc import Iterable
from fractions import Fraction
from glob import escape
from itertools import chain
from math import ceil
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ..errors import InputError
from ..sound.sound import Sound, to_int16
from .outputs import cannot_write, check_file, check_name, place, temporary
from .video import check_output, save_sound

PRORES = {"profile": "hq", "vendor": "apl0"}
FORMATS = {".mov": "ProRes 422 HQ", ".png": "a PNG for each frame, and a WAV"}
"""What a file with each ending becomes."""


def check_export(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Raise `InputError` if no video can or may be written to `path`, as MP4 or in `FORMATS`."""
    ending = path.suffix.lower()
    if ending in FORMATS:
        first, *others = files_of(path)
        check_file(first, inputs, overwrite)
        for file in others:
            check_name(file, inputs, overwrite)
    elif ending == ".mp4":
        check_output(path, inputs, overwrite)
    else:
        raise InputError(
            f"The output {path} does not end in .mp4, .mov or .png: give a name that does."
        )


def export(
    frames: Iterable[np.ndarray],
    rate: Fraction,
    sound: Sound | None,
    path: Path,
    overwrite: bool = False,
) -> Path:
    """Write frames (height, width, 3) uint8 and their sound as the ending of `path` says.

    `a.png` becomes `a_00000.png`, `a_00001.png`, ... and `a.wav`. Returns the path of the video, or
    of the first picture. Raises `InputError` if a file cannot be written, or exists and
    `overwrite` is False.
    """
    write = write_prores if path.suffix.lower() == ".mov" else write_pictures
    try:
        return write(frames, rate, sound, path, overwrite)
    except (av.FFmpegError, OSError) as error:
        raise cannot_write(path, error) from error


def write_prores(
    frames: Iterable[np.ndarray], rate: Fraction, sound: Sound | None, path: Path, overwrite: bool
) -> Path:
    """ProRes 422 HQ with 10 bits a colour, and sound of 16 bits that is not compressed."""
    frames = iter(frames)
    first = next(frames)
    with temporary(path) as file:
        with av.open(str(file), "w", format="mov") as container:
            video = container.add_stream("prores_ks", rate=rate, options=PRORES)
            assert isinstance(video, av.VideoStream)
            video.height, video.width = first.shape[:2]
            video.pix_fmt = "yuv422p10le"
            pcm = PcmWriter(container, sound) if sound else None
            count = 0
            for count, frame in enumerate(chain([first], frames), 1):  # noqa: B007
                container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(video.encode())
            if pcm:
                pcm.write(float(count / rate))
        place(file, path, overwrite)
    return path


class PcmWriter:
    """Writes a sound into a container, 16 bits a sample."""

    def __init__(self, container: av.container.OutputContainer, sound: Sound):
        self.container, self.sound = container, sound
        self.stream = container.add_stream("pcm_s16le", rate=sound.rate, layout=sound.layout)

    def write(self, seconds: float) -> None:
        """Write so many seconds, one after the other, so that a long sound takes little memory."""
        for start in range(ceil(seconds)):
            part = self.sound.cut(start, min(start + 1, seconds))
            packed = to_int16(part).reshape(1, -1).numpy()
            frame = av.AudioFrame.from_ndarray(packed, "s16", self.sound.layout)
            frame.rate, frame.pts = self.sound.rate, start * self.sound.rate
            self.container.mux(self.stream.encode(frame))


def write_pictures(
    frames: Iterable[np.ndarray], rate: Fraction, sound: Sound | None, path: Path, overwrite: bool
) -> Path:
    """A PNG for each frame, and the sound as a WAV. After an error, no picture is left.

    With `overwrite`, all pictures of an earlier video of this name are replaced, also if it had
    more of them.
    """
    for file in files_of(path):
        check_name(file, overwrite=overwrite)
    written: list[Path] = []
    try:
        for number, frame in enumerate(frames):
            written.append(numbered_picture(path, number))
            Image.fromarray(frame).save(written[-1], compress_level=1)
        if sound:
            whole = sound.cut(0, float(len(written) / rate))
            save_sound(whole, sound.rate, sound_file(path), overwrite)
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    for file in set(numbered_pictures(path)) - set(written):
        file.unlink()
    return written[0]


def first_file(path: Path) -> Path:
    """The file that a video named `path` has on the disk. Of many pictures, it is the first."""
    return numbered_picture(path, 0) if path.suffix.lower() == ".png" else path


def files_of(path: Path) -> list[Path]:
    """The files that a video named `path` has on the disk: `first_file`, and what else is there."""
    if path.suffix.lower() != ".png":
        return [path]
    return [first_file(path), sound_file(path), *numbered_pictures(path)]


def numbered_picture(path: Path, number: int) -> Path:
    return path.with_stem(f"{path.stem}_{number:05}")


def numbered_pictures(path: Path) -> list[Path]:
    """The pictures of a video named `path` that are on the disk."""
    return sorted(path.parent.glob(f"{escape(path.stem)}_{'[0-9]' * 5}{escape(path.suffix)}"))


def sound_file(path: Path) -> Path:
    """The sound of a video that is a picture for each frame."""
    return path.with_suffix(".wav")
