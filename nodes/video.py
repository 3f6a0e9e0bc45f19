"""Decode VAE and Extend With Motion Frames."""

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ..hallo3_core.config import MOTION_FRAMES, NEW_FRAMES
from ..hallo3_core.errors import InputError
from ..hallo3_core.noise import SeededNoise
from ..hallo3_core.portrait import Identity
from ..hallo3_core.segments import fade_in, motion_latents
from .host.vae import decode_latent, open_encoder
from .sampling import FRAMES
from .sockets import (
    CATEGORY,
    MotionSocket,
    identity_input,
    seed_input,
    segment_index_input,
    vae_input,
)


def latent_input() -> io.Latent.Input:
    return io.Latent.Input("latent", tooltip="One segment, from Sample Segment or any sampler.")


def decode_segment(
    latent: dict, vae, identity: Identity, previous: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """New frames of a segment as the picture has them, and its last two on the whole canvas.

    They fade from the last of the frames `previous`, if there are any.
    """
    new = latent.get(FRAMES, NEW_FRAMES)
    frames = decode_latent(vae, latent["samples"], MOTION_FRAMES + new)
    shown, last_frames = frames[:, *identity.place], frames[-MOTION_FRAMES:]
    if previous is None:
        return shown[MOTION_FRAMES:], last_frames
    last = previous[-1, ..., :3]
    if last.shape[:2] != identity.size:
        raise wrong_size("The previous frames have", last, identity)
    repeated = shown[MOTION_FRAMES - 1]
    return fade_in(shown[MOTION_FRAMES:], repeated, last.to(repeated)), last_frames


def wrong_size(found: str, frames: Tensor, identity: Identity) -> InputError:
    """`frames` (..., height, width, 3) are not as large as the video of `identity`."""
    height, width = frames.shape[-3:-1]
    return InputError(
        f"{found} {width} x {height} pixels, the video {identity.size[1]} x {identity.size[0]}: "
        "connect them as Decode VAE gives them."
    )


def extend(frames: Tensor, vae, identity: Identity, seed: int, index: int) -> Tensor:
    """Motion for segment `index`, which continues the last two of `frames`.

    Frames of the picture's size are put back on the canvas first.
    """
    height, width = identity.portrait.shape[-2:]
    frames = frames[-MOTION_FRAMES:, ..., :3]
    if len(frames) < MOTION_FRAMES:
        raise InputError(f"Motion takes two frames, this is {len(frames)}: connect more.")
    if frames.shape[1:3] == identity.size:
        rows, columns = identity.place
        edges = (columns.start, width - columns.stop, rows.start, height - rows.stop)
        frames = F.pad(frames, (0, 0, *edges))
    if frames.shape[1:3] != (height, width):
        raise wrong_size("The frames have", frames, identity)
    pixels = frames.permute(3, 0, 1, 2)[None].clamp(0, 1) * 2 - 1
    draws = SeededNoise(seed).stream("motion", index)
    with torch.no_grad():
        encoder = open_encoder(vae, height, width)
        motion = motion_latents(encoder, identity.portrait.to(pixels), pixels, draws)
    return motion[:, :, :1].clone()


class DecodeVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3DecodeVAE",
            display_name="Decode VAE",
            category=CATEGORY,
            description="Decodes a segment in time chunks and leaves out the frames that repeat "
            "the segment before.",
            inputs=[
                latent_input(),
                vae_input(),
                identity_input(),
                io.Image.Input(
                    "previous_frames",
                    optional=True,
                    tooltip="Frames of the segment before: this one begins without a jump.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The segment's new frames."),
                io.Image.Output(
                    display_name="last_frames",
                    tooltip="The last two, for Extend With Motion Frames.",
                ),
            ],
        )

    @classmethod
    def execute(cls, latent, vae, identity, previous_frames=None) -> io.NodeOutput:
        return io.NodeOutput(*decode_segment(latent, vae, identity, previous_frames))


class ExtendWithMotionFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3ExtendWithMotionFrames",
            display_name="Extend With Motion Frames",
            category=CATEGORY,
            description="Lets the next segment continue the last two frames of any batch.",
            inputs=[
                io.Image.Input(
                    "frames", tooltip="The last two count; they may have been edited on the way."
                ),
                identity_input(),
                vae_input(),
                segment_index_input("The segment that continues these frames"),
                seed_input(),
            ],
            outputs=[MotionSocket.Output(display_name="motion", tooltip="For Sample Segment.")],
        )

    @classmethod
    def execute(cls, frames, identity, vae, segment_index, seed) -> io.NodeOutput:
        return io.NodeOutput(extend(frames, vae, identity, seed, segment_index))
