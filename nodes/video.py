"""Decode VAE and Extend With Motion Frames."""

import logging

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ..hallo3_core.autoencoder.motion import motion_latents
from ..hallo3_core.autoencoder.new_frames import read_new_frames
from ..hallo3_core.errors import InputError
from ..hallo3_core.media.picture import rgb_images
from ..hallo3_core.network.config import MOTION_FRAMES, NEW_FRAMES
from ..hallo3_core.noise import SeededNoise
from ..hallo3_core.portrait.encode import Identity
from ..hallo3_core.sampling.fade import fade_in
from .host.out_of_memory import VAE_ON_CPU, enough_memory
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

logger = logging.getLogger(__name__)


def latent_input() -> io.Latent.Input:
    return io.Latent.Input("latent", tooltip="One segment, from Sample Segment or any sampler.")


def decode_segment(
    latent: dict, vae, identity: Identity, previous: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """New frames of a segment as the picture has them, and its last two on the whole canvas.

    They fade from the last of the frames `previous`, if there are any. Segments of a batch come
    one after the other, and the last two are those of the last. Raises `InputError`.
    """
    samples = segments_of(latent, identity)
    if previous is not None:
        previous = rgb_images(previous, "The IMAGE on previous_frames", last=1)
        if previous.shape[1:3] != identity.size:
            raise wrong_size("The previous frames have", previous, identity)
    shown = []
    for segment in samples.split(1):
        frames = decode_latent(vae, segment, MOTION_FRAMES + new_frames(segment, latent))
        repeated, begun = frames[:, *identity.place].tensor_split([MOTION_FRAMES])
        if previous is not None:
            begun = previous = fade_in(begun, repeated[-1], previous[-1].to(repeated))
        shown.append(begun)
    return torch.cat(shown), frames[-MOTION_FRAMES:]


def segments_of(latent: dict, identity: Identity) -> Tensor:
    """The samples of a LATENT, (segments, 16, 13, height / 8, width / 8).

    Raises `InputError` if they are not segments of the video of `identity`.
    """
    samples, wanted = latent["samples"], identity.motion.shape[1:]
    if samples.is_nested or samples.shape[1:] != wanted or not len(samples):
        found = "nested" if samples.is_nested else " x ".join(map(str, samples.shape[1:]))
        raise InputError(
            f"The latent is {found} (channels, frames, height, width), a segment of this identity "
            f"{' x '.join(map(str, wanted))}: connect Sample Segment, or a sampler whose latent is "
            "Segment Conditioning's."
        )
    if not samples.isfinite().all():
        raise InputError(
            "The latent has numbers that are not finite: load the model in bf16, or remove the "
            "LoRA, and sample again."
        )
    return samples


def new_frames(segment: Tensor, latent: dict) -> int:
    """How many new frames the samples of a segment have, which are of this LATENT."""
    count = read_new_frames(segment) or latent.get(FRAMES)
    if count is None:
        logger.warning(
            "The latent does not say where its speech ends, so all %d frames are shown. Sample "
            "Segment writes that into its latents; those of other samplers lose it when they are "
            "saved or rebatched.",
            NEW_FRAMES,
        )
        return NEW_FRAMES
    return count


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
    frames = rgb_images(frames, "The IMAGE on frames", last=MOTION_FRAMES)
    if len(frames) < MOTION_FRAMES:
        raise InputError(f"Motion takes two frames, this is {len(frames)}: connect more.")
    if frames.shape[1:3] == identity.size:
        rows, columns = identity.place
        edges = (columns.start, width - columns.stop, rows.start, height - rows.stop)
        frames = F.pad(frames, (0, 0, *edges))
    if frames.shape[1:3] != (height, width):
        raise wrong_size("The frames have", frames, identity)
    pixels = frames.permute(3, 0, 1, 2)[None] * 2 - 1
    draws = SeededNoise(seed).stream("motion", index)
    with torch.no_grad(), enough_memory("encode the motion frames", VAE_ON_CPU):
        encoder = open_encoder(vae, height, width)
        motion = motion_latents(encoder, identity.portrait.to(pixels), pixels, draws)
    return motion[:, :, :1].to(vae.output_device, copy=True)


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
