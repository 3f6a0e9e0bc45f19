"""Crop Face and Paste Face."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import comfy.utils
import torch
import torch.nn.functional as F
from comfy_api.latest import Input, InputImpl, Types, io
from torch import Tensor

from ..hallo3_core.errors import InputError
from ..hallo3_core.media.frames import LosslessWriter, VideoFile, picture_of, with_changes
from ..hallo3_core.media.picture import rgb_images, size_of
from ..hallo3_core.network.config import Size
from ..hallo3_core.portrait.face_mask import region_box
from ..hallo3_core.portrait.faces import Face, draw, largest_first
from ..hallo3_core.portrait.framing import Box
from ..hallo3_core.portrait.squares import (
    CROP_SIZE,
    FEATHER,
    check_crops,
    check_frames,
    crop,
    paste,
)
from ..hallo3_core.portrait.track import FaceTrack, follow, track_face, track_of_boxes
from .host.images import intermediate
from .host.onnx import face_finder
from .host.say import say
from .host.video import LosslessVideo, frames_of, pictures_of, temporary_file, watched
from .sockets import CATEGORY, TrackSocket

SHOWN, SHOWN_SIDE = 8, 480
"""The preview has at most so many frames of at most so many pixels on the longer side."""
MARGIN = 1.5


def where_inputs() -> list[io.Input]:
    """Where the face is, if another node has found it."""
    return [
        io.BoundingBox.Input(
            "boxes",
            optional=True,
            force_input=True,
            tooltip="Boxes of the faces in each frame, from MediaPipe's or another "
            "detector. Without boxes and mask, the detector of Find Face is used.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where the face is: a mask for each frame, or one for all, such as "
            "framed_face_region of Encode Identity. The box around it is used.",
        ),
    ]


class CropFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3CropFace",
            display_name="Crop Face",
            search_aliases=["face restore", "face detailer", "track face", "face crop"],
            category=f"{CATEGORY}/finish",
            description="Squares around one face, which is followed through a video: for a face "
            "restorer, an upscaler or any other image node. Paste Face puts the squares "
            "back.",
            inputs=[
                io.MultiType.Input(
                    "frames",
                    [io.Image, io.Video],
                    tooltip="The frames, or the video. A video is read frame by frame, so it takes "
                    "little memory.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="Which face is followed. 0 is the largest face of the first frame that "
                    "has one.",
                ),
                io.Int.Input(
                    "size",
                    default=CROP_SIZE,
                    min=64,
                    max=2048,
                    step=8,
                    tooltip="The side of the crops in pixels. Most face restorers want 512.",
                ),
                io.Float.Input(
                    "margin",
                    default=MARGIN,
                    min=1.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How many times larger than the face the square is. A larger "
                    "square has more of the hair and the neck.",
                ),
                *where_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="crops", tooltip="The face, one square a frame."),
                TrackSocket.Output(
                    display_name="track", tooltip="Where the squares are, for Paste Face."
                ),
                io.Image.Output(
                    display_name="preview", tooltip="Up to eight of the frames, with the square."
                ),
            ],
        )

    @classmethod
    def execute(cls, frames, face_index, size, margin, boxes=None, mask=None) -> io.NodeOutput:
        source = frames_of(frames)
        bar = comfy.utils.ProgressBar(2 * expected_frames(frames))
        track = track_of(watched(pictures_of(source), bar), face_index, boxes, mask).grown(margin)
        crops, preview = crops_and_preview(watched(pictures_of(source), bar), track, size)
        side = (track.boxes[:, 2] - track.boxes[:, 0]).mean()
        say(f"{len(track)} crops; the square has {side:.0f} pixels in the frames")
        return io.NodeOutput(crops, track, preview)


def expected_frames(frames: Tensor | Input.Video) -> int:
    """About how many frames there are, for the progress bar."""
    if isinstance(frames, Input.Video):
        return max(round(frames.get_duration() * frames.get_frame_rate()), 1)
    return len(frames)


def track_of(
    pictures: Iterator[Tensor], index: int, boxes: list | dict | None, mask: Tensor | None
) -> FaceTrack:
    """The track of the face in the boxes, or else in the mask, or else found in the pictures."""
    if boxes is None and mask is None:
        return track_face(pictures, face_finder(), index)
    count, frame = 0, (0, 0)
    for picture in pictures:
        count, frame = count + 1, size_of(picture[..., 0])
    if not count:
        raise InputError("The video has no frames: choose another video.")
    if mask is None or boxes is not None:
        found = follow(for_all(faces_of(boxes or []), count, "boxes"), index)
    else:
        found = [box_of(each) for each in masks_of(mask, count, frame)]
    return track_of_boxes(found, frame)


def masks_of(mask: Tensor, count: int, frame: Size) -> Sequence[Tensor]:
    """The mask of each of `count` frames. Raises `InputError` if they do not fit."""
    if mask.shape[-2:] != frame:
        found, wanted = (f"{width} x {height}" for height, width in (mask.shape[-2:], frame))
        raise InputError(
            f"The mask has {found} pixels, but the frames have {wanted}: make the mask from the "
            "frames themselves."
        )
    return for_all(list(mask.reshape(-1, *frame)), count, "masks")


def box_of(region: Tensor) -> Box | None:
    """The box around a mask. None if it is empty."""
    return region_box(region) if (region > 0.5).any() else None


def faces_of(boxes: list | dict) -> list[list[Face]]:
    """The faces in the boxes of each frame, as ComfyUI's detectors give them."""
    if isinstance(boxes, dict):
        boxes = [boxes]
    frames = [[part] if isinstance(part, dict) else part for part in boxes]
    return [
        largest_first(
            [
                Face((b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]), b.get("score"))
                for b in part
            ]
        )
        for part in frames
    ]


def for_all(values: list, count: int, name: str) -> list:
    """Values for `count` frames. A single one is for all of them.

    Raises `InputError` if there are other numbers of them.
    """
    if len(values) not in (1, count):
        raise InputError(
            f"The video has {count} frames, and there are {name} for {len(values)}: connect {name} "
            "for each frame, or for one frame to use them for all."
        )
    return values * count if len(values) == 1 else values


def crops_and_preview(
    pictures: Iterator[Tensor], track: FaceTrack, size: int
) -> tuple[Tensor, Tensor]:
    """The crops (frames, size, size, 3), and some frames with the square drawn.

    Both in one pass: the pictures come from a file, and are not held in memory.
    """
    crops = intermediate(torch.empty(len(track), size, size, 3))
    every, shown = -(-len(track) // SHOWN), []
    for number, picture in enumerate(pictures):
        crops[number] = crop(picture[None], track, number, size)[0]
        if number % every == 0:
            shown.append(with_square(picture, track, number))
    return crops, intermediate(torch.stack(shown))


def with_square(picture: Tensor, track: FaceTrack, number: int) -> Tensor:
    """A small copy of a picture (height, width, 3) with the square of the track."""
    scale = min(SHOWN_SIDE / max(track.frame), 1)
    height, width = (max(round(side * scale), 1) for side in track.frame)
    small = F.interpolate(
        picture.movedim(-1, 0)[None], (height, width), mode="bilinear", antialias=True
    )
    left, top, right, bottom = (edge * scale for edge in track.box(number))
    return draw(small[0], [Face((left, top, right, bottom))], 0).movedim(0, -1)


class PasteFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        source = io.MatchType.Template("frames", [io.Image, io.Video])
        return io.Schema(
            node_id="Hallo3PasteFace",
            display_name="Paste Face",
            search_aliases=["face restore", "uncrop face", "face detailer"],
            category=f"{CATEGORY}/finish",
            description="The frames with the squares of Crop Face put back, with a soft edge. "
            "Outside the squares, every pixel stays as it was.",
            inputs=[
                io.MatchType.Input(
                    "frames",
                    source,
                    tooltip="The same frames or video as on Crop Face.",
                ),
                io.Image.Input(
                    "crops",
                    tooltip="The restored squares. They may be larger than before, so an upscaler "
                    "works too.",
                ),
                TrackSocket.Input("track", tooltip="Where the squares are, from Crop Face."),
                io.Float.Input(
                    "feather",
                    default=FEATHER,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="How wide the soft edge is, as a share of the side of the square. A "
                    "wider edge is less visible, but keeps less of the restored picture.",
                ),
                io.Float.Input(
                    "match_colours",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How strongly the crops get the colours of the frame (mean and spread "
                    "of each colour). 0 keeps the colours of the crops.",
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    source,
                    display_name="frames",
                    tooltip="The frames or the video that came in, with the restored face. A video "
                    "keeps its sound and is lossless.",
                )
            ],
        )

    @classmethod
    def execute(cls, frames, crops, track, feather, match_colours) -> io.NodeOutput:
        check_crops(crops, len(track))
        bar = comfy.utils.ProgressBar(len(track))
        source = frames_of(frames)
        options = {"feather": feather, "match_colours": match_colours}
        if isinstance(source, VideoFile):
            return io.NodeOutput(paste_video(source, crops, track, bar, **options))
        pasted = paste_images(source, crops, track, bar, **options)
        if isinstance(frames, Input.Video):
            return io.NodeOutput(remade(frames, pasted))
        return io.NodeOutput(pasted)


def paste_images(
    images: Tensor, crops: Tensor, track: FaceTrack, bar: comfy.utils.ProgressBar, **options
) -> Tensor:
    """Images of any number of channels with the crops in the first three."""
    if len(images) != len(track):
        raise wrong_number(len(images), track)
    check_frames(images, track)
    pasted = images.clone()
    for number in range(len(images)):
        one = slice(number, number + 1)
        square = rgb_images(crops[one], "The IMAGE on crops")
        pasted[one, ..., :3] = paste(images[one, ..., :3], square, track, number, **options)
        bar.update(1)
    return pasted


def remade(video: Input.Video, images: Tensor) -> Input.Video:
    """A VIDEO made of images, with other images."""
    parts = video.get_components()
    parts = Types.VideoComponents(
        images=images, audio=parts.audio, frame_rate=Fraction(parts.frame_rate)
    )
    return InputImpl.VideoFromComponents(parts, bit_depth=video.get_bit_depth())


def paste_video(
    video: VideoFile, crops: Tensor, track: FaceTrack, bar: comfy.utils.ProgressBar, **options
) -> LosslessVideo:
    """The video with the crops, in a temporary file."""
    file, number = temporary_file(), -1
    with LosslessWriter(file, video) as writer:
        for number, frame in enumerate(video.frames()):
            if number == len(track):
                raise wrong_number(f"more than {number}", track)
            before = picture_of(frame)
            square = rgb_images(crops[number, None], "The IMAGE on crops")
            after = paste(before[None], square, track, number, **options)[0]
            writer.write(with_changes(frame, before, after, track.window(number)))
            bar.update(1)
        if number + 1 < len(track):
            raise wrong_number(number + 1, track)
    return LosslessVideo(str(file))


def wrong_number(found: int | str, track: FaceTrack) -> InputError:
    return InputError(
        f"There are {found} frames, and the track has {len(track)}: connect the same frames to "
        "Crop Face and to Paste Face."
    )
