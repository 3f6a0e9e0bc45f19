"""Export Video."""

from fractions import Fraction
from pathlib import Path

import folder_paths
from comfy_api.latest import Input, io

from ..hallo3_core.media.export import FORMATS, export
from ..hallo3_core.media.picture import to_uint8
from .host.say import say
from .host.video import frames_of, pictures_of, sound_of
from .sockets import CATEGORY

ENDINGS = {what: ending for ending, what in FORMATS.items()}


class ExportVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3ExportVideo",
            display_name="Export Video",
            search_aliases=["save video", "prores", "png sequence"],
            category=f"{CATEGORY}/finish",
            description="A video file for editors: ProRes, or a PNG for each frame. Save Video "
            "writes MP4.",
            inputs=[
                io.Video.Input(
                    "video",
                    tooltip="From Animate Portrait with the codec lossless, or any other video.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="hallo3/export",
                    tooltip="The folder in ComfyUI's output folder, and how the names begin.",
                ),
                io.Combo.Input("format", options=list(ENDINGS), tooltip="What is written."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, video: Input.Video, filename_prefix: str, format: str) -> io.NodeOutput:
        width, height = video.get_dimensions()
        folder, name, number, *_ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        frames = frames_of(video)
        pictures = (to_uint8(picture).numpy() for picture in pictures_of(frames))
        file = Path(folder, f"{name}_{number:05}_{ENDINGS[format]}")
        file.parent.mkdir(parents=True, exist_ok=True)
        first = export(pictures, Fraction(video.get_frame_rate()), sound_of(video), file)
        say(f"written to {first}")
        return io.NodeOutput()
