"""Encode Identity."""

import torch
from comfy_api.latest import io

from ..hallo3_core.errors import InputError
from ..hallo3_core.framing import FITS
from ..hallo3_core.noise import SeededNoise
from ..hallo3_core.portrait import box_region, encode_portrait, face_region
from .host.model import RunOnce
from .host.vae import open_encoder
from .sockets import CATEGORY, FaceSocket, IdentitySocket, ReferenceNetwork, seed_input, vae_input


class EncodeIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3EncodeIdentity",
            display_name="Encode Identity",
            category=CATEGORY,
            description="Fits a portrait to the canvas and encodes who it shows, once for a video.",
            inputs=[
                io.Image.Input("image", tooltip="One portrait."),
                vae_input(),
                ReferenceNetwork.Input("reference_network", tooltip="From Load Hallo3 DiT."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The face, from MediaPipe's face nodes or drawn by hand; the box "
                    "around it counts. Without it the whole picture does.",
                ),
                io.Float.Input(
                    "growth",
                    default=1.2,
                    min=1.0,
                    max=3.0,
                    step=0.05,
                    advanced=True,
                    tooltip="How much the box around the mask grows; published is 1.2.",
                ),
                seed_input(),
                FaceSocket.Input(
                    "face",
                    optional=True,
                    tooltip="From Find Face: whose face it is, and where, unless there is a mask.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    optional=True,
                    tooltip="published: squares are padded, others cropped around their middle to "
                    "3:2. pad: all of the picture, and the video in its shape. crop: 3:2 around "
                    "the face.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="Who speaks."),
                io.Image.Output(display_name="framed", tooltip="The portrait as the video has it."),
                io.Mask.Output(display_name="face_region", tooltip="What counts as the face."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image,
        vae,
        reference_network,
        growth,
        seed,
        mask=None,
        face=None,
        fit="published",
    ) -> io.NodeOutput:
        picture = one_picture(image)
        size = picture.shape[1:]
        region, embedding = None, None
        if face is not None:
            region, embedding = box_region(face.box, size, growth), face.embedding
        if mask is not None:
            region = face_region(check_mask(mask, size), growth)
        network = RunOnce(reference_network)
        encoder = open_encoder(vae, *network.config.canvas)
        draws = SeededNoise(seed)
        identity = encode_portrait(encoder, network, picture, region, draws, embedding, fit)
        framed = identity.portrait[..., *identity.place].movedim(1, -1) / 2 + 0.5
        region = torch.ones(size) if region is None else region
        return io.NodeOutput(identity, framed.clamp(0, 1).cpu(), region[None])


def one_picture(image: torch.Tensor) -> torch.Tensor:
    """The only picture of an IMAGE, (3, height, width), on black where it is transparent."""
    if len(image) != 1 or image.shape[-1] not in (3, 4):
        raise InputError(
            f"The portrait is a batch of {len(image)} images of {image.shape[-1]} channels: "
            "connect one RGB image."
        )
    picture = image[0, ..., :3].movedim(-1, 0)
    return picture * image[0, ..., 3] if image.shape[-1] == 4 else picture


def check_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The first of a batch of masks, which must be of the picture's size and not empty."""
    mask = mask.reshape(-1, *mask.shape[-2:])[0]
    if mask.shape != size:
        found, wanted = (f"{width} x {height}" for height, width in (mask.shape, size))
        raise InputError(
            f"The mask has {found} pixels and the portrait {wanted}: make it of the same picture."
        )
    if not (mask > 0.5).any():
        raise InputError("The mask is empty: paint the face, or disconnect it.")
    return mask
