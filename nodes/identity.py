"""Encode Identity."""

import torch
from comfy_api.latest import io

from ..hallo3_core import builtin
from ..hallo3_core.media.picture import one_mask, one_picture
from ..hallo3_core.noise import SeededNoise
from ..hallo3_core.portrait.encode import (
    FACE_BOX_GROWTH,
    LEAST_GROWTH,
    MOST_GROWTH,
    box_region,
    encode_portrait,
    face_region,
    framed_region,
    framing_of,
)
from ..hallo3_core.portrait.framing import FIT, FITS
from .host.images import kept
from .host.model import RunOnce
from .host.out_of_memory import VAE_ON_CPU, enough_memory
from .host.say import say
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
                    "around it counts. Without it, or with nothing painted, the face from Find "
                    "Face does, else the whole picture.",
                ),
                io.Float.Input(
                    "growth",
                    default=FACE_BOX_GROWTH,
                    min=LEAST_GROWTH,
                    max=MOST_GROWTH,
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
                    default=FIT,
                    optional=True,
                    tooltip="published: squares are padded, others cropped around their middle to "
                    "3:2, which may cut the face away. crop: 3:2 around the face. pad: all of the "
                    "picture, and the video in its shape. auto: published, or the first of crop "
                    "and pad that keeps the face where published would cut it.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="Who speaks."),
                io.Image.Output(display_name="framed", tooltip="The portrait as the video has it."),
                io.Mask.Output(
                    display_name="face_region",
                    tooltip="What counts as the face, in the picture that is connected.",
                ),
                io.Mask.Output(
                    display_name="framed_face_region",
                    tooltip="What counts as the face, in the video.",
                ),
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
        fit=FIT,
    ) -> io.NodeOutput:
        picture = one_picture(image)
        size = tuple(picture.shape[1:])
        region, embedding = None, None
        if face is not None:
            region, embedding = box_region(face.box, size, growth), face.embedding
        painted = None if mask is None else one_mask(mask, size)
        if painted is not None:
            region = face_region(painted, growth)
        network = RunOnce(reference_network)
        canvas = network.config.canvas
        draws = SeededNoise(seed)
        with enough_memory("encode the portrait", f"use fp8 weights {VAE_ON_CPU}"):
            encoder = open_encoder(vae, *canvas)
            identity = encode_portrait(encoder, network, picture, region, draws, embedding, fit)
        height, width = identity.size
        known = [builtin.DRAWN_ONLY] if reference_network.model.built_in else []
        say(f"the video has {width} x {height} pixels", *known)
        framed = identity.portrait[..., *identity.place].movedim(1, -1) / 2 + 0.5
        region = torch.ones(size) if region is None else region
        regions = region, framed_region(framing_of(fit, size, canvas, region), region)
        return io.NodeOutput(
            identity, kept(framed.clamp(0, 1)), *(kept(region[None]) for region in regions)
        )
