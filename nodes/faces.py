"""Find Face."""

import logging

from comfy_api.latest import io

from ..hallo3_core.faces import Face, choose, draw
from ..hallo3_core.portrait import box_region
from .host.onnx import face_finder
from .identity import one_picture
from .sockets import CATEGORY, FaceSocket

logger = logging.getLogger(__name__)


class FindFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3FindFace",
            display_name="Find Face",
            category=CATEGORY,
            description="Finds the face that is to speak: by InsightFace if it is installed, "
            "else frontal faces by scikit-image.",
            inputs=[
                io.Image.Input("image", tooltip="The portrait, or a picture of several people."),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="Which of the faces, as numbered in the preview; 0 is the largest.",
                ),
            ],
            outputs=[
                FaceSocket.Output(display_name="face", tooltip="For Encode Identity."),
                io.Image.Output(
                    display_name="preview", tooltip="All faces that were found, the chosen green."
                ),
                io.Mask.Output(
                    display_name="mask", tooltip="The box of the face; all, where none was found."
                ),
                io.Int.Output(display_name="count", tooltip="How many faces there are."),
            ],
        )

    @classmethod
    def execute(cls, image, face_index: int) -> io.NodeOutput:
        picture = one_picture(image)
        height, width = picture.shape[1:]
        faces = face_finder()(picture)
        face = choose(faces, face_index)
        if face is None:
            logger.warning(
                "No face was found: the whole picture counts as one. Connect a mask of the face "
                "to Encode Identity."
            )
            face = Face((0, 0, width, height))
        preview = draw(picture, faces, face_index).movedim(0, -1)[None]
        region = box_region(face.box, (height, width), growth=1)
        return io.NodeOutput(face, preview, region[None], len(faces))
