"""Find Face."""

import logging

import torch
from comfy_api.latest import io, ui

from ..hallo3_core.media.picture import one_picture, size_of
from ..hallo3_core.portrait.face_mask import box_region
from ..hallo3_core.portrait.faces import choose, draw
from ..hallo3_core.portrait.finders import no_face
from .host.images import intermediate
from .host.onnx import face_finder, face_folders
from .host.say import say
from .sockets import CATEGORY, FaceSocket

logger = logging.getLogger(__name__)


class FindFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3FindFace",
            display_name="Find Face",
            search_aliases=["face detection", "detect face", "insightface", "face box"],
            category=f"{CATEGORY}/portrait",
            description="The face that speaks, found in the picture. It uses InsightFace if "
            "that is installed, otherwise scikit-image, which finds frontal faces only.",
            inputs=[
                io.Image.Input("image", tooltip="A portrait, or a picture of several people."),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="Which face speaks. The picture shows the numbers. 0 is the largest "
                    "face.",
                ),
            ],
            outputs=[
                FaceSocket.Output(
                    display_name="face", tooltip="The chosen face, for Encode Identity."
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="All faces that were found. The chosen one is green.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="The box of the chosen face, or the whole picture if no face was "
                    "found.",
                ),
                io.Int.Output(display_name="count", tooltip="How many faces were found."),
            ],
        )

    @classmethod
    def execute(cls, image, face_index: int) -> io.NodeOutput:
        picture = one_picture(image)
        size = size_of(picture)
        faces = face_finder()(picture)
        face, region = choose(faces, face_index), torch.ones(size)
        if face is None:
            mend = "Connect a mask of the face to Encode Identity."
            logger.warning(no_face(mend, face_folders()))
        else:
            region = box_region(face.box, size, growth=1)
            count = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
            by = " (by scikit-image, which finds only frontal ones)"
            say(f"{count}{by if face.embedding is None else ''}")
        preview = draw(picture, faces, face_index).movedim(0, -1)[None]
        return io.NodeOutput(
            face,
            intermediate(preview),
            intermediate(region[None]),
            len(faces),
            ui=ui.PreviewImage(preview, cls=cls),
        )
