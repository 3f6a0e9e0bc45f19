"""Encode Identity."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..hallo3_core import builtin
from ..hallo3_core.media.picture import one_mask, one_picture, size_of
from ..hallo3_core.noise import SeededNoise
from ..hallo3_core.portrait.encode import Identity, encode_portrait, framed_region
from ..hallo3_core.portrait.face_mask import FACE_BOX_GROWTH, LEAST_GROWTH, MOST_GROWTH, region_of
from ..hallo3_core.portrait.framing import FIT, FITS
from .host.images import intermediate
from .host.model import RunOnce
from .host.out_of_memory import VAE_ON_CPU, enough_memory
from .host.say import say
from .host.vae import open_encoder
from .settings import settings_inputs
from .sockets import CATEGORY, FaceSocket, IdentitySocket, ReferenceNetwork, vae_input


def mask_input() -> io.Mask.Input:
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip="Where the face is: a mask that you paint, or one from MediaPipe's face nodes. The "
        "box around it is used. Without a mask, the face from Find Face is used, or else the whole "
        "picture.",
    )


def fit_input() -> io.Combo.Input:
    return io.Combo.Input(
        "fit",
        options=list(FITS),
        default=FIT,
        optional=True,
        tooltip="How the picture is placed on the canvas. published: squares are padded, others "
        "cropped to 3:2. crop: 3:2 around the face. pad: the whole picture. auto: the first of "
        "these that keeps the face.",
    )


def identity_of(
    vae,
    network: RunOnce,
    picture: Tensor,
    region: Tensor | None,
    seed: int,
    face: Tensor | None,
    fit: str,
) -> Identity:
    """The Identity of a portrait, with the VAE and the reference network of a node's inputs.

    The arguments are those of `encode_portrait`, which also raises the errors. Raises `InputError`
    if there is not enough memory.
    """
    with enough_memory("encode the portrait", f"use quantised weights {VAE_ON_CPU}"):
        encoder = open_encoder(vae, *network.config.canvas)
        return encode_portrait(encoder, network, picture, region, SeededNoise(seed), face, fit)


class EncodeIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3EncodeIdentity",
            display_name="Encode Identity",
            search_aliases=["portrait", "reference image", "face id"],
            category=f"{CATEGORY}/portrait",
            description="Who speaks: the portrait, fitted to the canvas and encoded. It runs once "
            "for a video.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="One picture of the person who speaks, not a batch."
                ),
                vae_input(),
                ReferenceNetwork.Input(
                    "reference_network", tooltip="The reference network, from Load Hallo3 DiT."
                ),
                mask_input(),
                io.Float.Input(
                    "growth",
                    default=FACE_BOX_GROWTH,
                    min=LEAST_GROWTH,
                    max=MOST_GROWTH,
                    step=0.05,
                    advanced=True,
                    tooltip="How many times larger the box around the face becomes. A larger box "
                    "has more of the hair and the neck. The published program uses 1.2.",
                ),
                *settings_inputs("seed"),
                FaceSocket.Input(
                    "face",
                    optional=True,
                    tooltip="The face from Find Face: who it is, and where it is. If a mask is "
                    "connected, the mask says where it is.",
                ),
                fit_input(),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="Who speaks."),
                io.Image.Output(
                    display_name="framed", tooltip="The portrait as it is in the video."
                ),
                io.Mask.Output(
                    display_name="face_region", tooltip="The face region in your picture."
                ),
                io.Mask.Output(
                    display_name="framed_face_region", tooltip="The face region in the video."
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
        size = size_of(picture)
        box, embedding = (face.box, face.embedding) if face else (None, None)
        painted = None if mask is None else one_mask(mask, size)
        region = region_of(painted, box, size, growth)
        network = RunOnce(reference_network)
        identity = identity_of(vae, network, picture, region, seed, embedding, fit)
        height, width = identity.size
        known = [builtin.DRAWN_ONLY] if reference_network.model.built_in else []
        say(f"the video has {width} x {height} pixels", *known)
        framed = identity.portrait[..., *identity.place].movedim(1, -1) / 2 + 0.5
        region = torch.ones(size) if region is None else region
        regions = region, framed_region(identity.framing, region)
        return io.NodeOutput(
            identity,
            intermediate(framed.clamp(0, 1)),
            *(intermediate(region[None]) for region in regions),
        )
