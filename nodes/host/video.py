"""VIDEO and IMAGE as frames that are read one after the other, and videos that wait to be saved."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import comfy.utils
import folder_paths
from comfy_api.latest import Input, InputImpl, Types
from torch import Tensor

from ...hallo3_core.media.frames import VideoFile
from ...hallo3_core.media.picture import rgb_images

CRF = 17
"""The quality of the saved video, as that of Animate Portrait."""


def frames_of(frames: Tensor | Input.Video) -> Tensor | VideoFile:
    """An IMAGE, or the part of a file that a VIDEO shows. A VIDEO made of an IMAGE is one."""
    if isinstance(frames, InputImpl.VideoFromFile):
        return VideoFile(frames.get_stream_source(), *frames.get_active_trim_window())
    return frames.get_components().images if isinstance(frames, Input.Video) else frames


def pictures_of(frames: Tensor | VideoFile) -> Iterator[Tensor]:
    """Yield each frame as a picture (height, width, 3), float32 in [0, 1]."""
    if isinstance(frames, VideoFile):
        yield from frames.pictures()
    else:
        for image in frames.split(1):
            yield rgb_images(image, "The IMAGE on frames")[0]


def watched(pictures: Iterator[Tensor], bar: comfy.utils.ProgressBar) -> Iterator[Tensor]:
    """Count the pictures on the progress bar of the node. The user can stop at each of them."""
    for picture in pictures:
        yield picture
        bar.update(1)


def temporary_file() -> Path:
    """A new name for a video in ComfyUI's folder of temporary files."""
    file = Path(folder_paths.get_temp_directory()) / f"hallo3_{uuid4().hex[:8]}.mp4"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


class LosslessVideo(InputImpl.VideoFromFile):
    """A video without loss, for other nodes.

    Browsers do not play it, and it is large. So Save Video encodes it, also if it could copy it.
    """

    def save_to(
        self,
        path,
        format=Types.VideoContainer.AUTO,
        codec=Types.VideoCodec.AUTO,
        metadata=None,
        bit_depth=None,
        crf=None,
        color_space=None,
    ) -> None:
        if crf is None and Types.VideoCodec(codec) != Types.VideoCodec.AV1:
            crf = CRF
        super().save_to(path, format, codec, metadata, bit_depth, crf, color_space)
