"""Decode VAE and Extend With Motion Frames."""

import logging

import torch
from comfy_api.latest import io
from torch import Tensor

from ..hallo3_core.autoencoder.motion import motion_after
from ..hallo3_core.autoencoder.new_frames import read_new_frames
from ..hallo3_core.errors import InputError
from ..hallo3_core.media.picture import rgb_images
from ..hallo3_core.network.config import MOTION_FRAMES, NEW_FRAMES
from ..hallo3_core.noise import SeededNoise
from ..hallo3_core.portrait.anchor import anchored
from ..hallo3_core.portrait.encode import Identity, on_canvas
from ..hallo3_core.sampling.fade import shown_frames
from .host.out_of_memory import VAE_ON_CPU, enough_memory
from .host.say import say
from .host.vae import decode_latent, open_encoder
from .sampling import FRAMES
from .settings import BETWEEN, settings_inputs
from .sockets import CATEGORY, MotionSocket, identity_input, segment_index_input, vae_input

logger = logging.getLogger(__name__)


def decode_segment(
    latent: dict, vae, identity: Identity, previous: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The new frames of a segment, without the canvas, and the last two frames with the canvas.

    Both are (frames, height, width, 3) in [0, 1]. The new frames fade in from the last frame of
    `previous`, if that is given. The segments of a batch are decoded one after the other, and the
    last two frames are those of the last segment. Raises `InputError` if the latent or the previous
    frames do not fit.
    """
    samples = segments_of(latent, identity)
    if previous is not None:
        previous = rgb_images(previous, "The IMAGE on previous_frames", last=1)
        if previous.shape[1:3] != identity.size:
            raise wrong_size("The previous frames have", previous, identity)
    last, shown = None if previous is None else previous[-1], []
    for segment in samples.split(1):
        canvas = decode_latent(vae, segment, MOTION_FRAMES + new_frames(segment, latent))
        shown.append(shown_frames(canvas, identity.place, last))
        last = None if last is None else shown[-1][-1]
    return torch.cat(shown), canvas[-MOTION_FRAMES:]


def segments_of(latent: dict, identity: Identity) -> Tensor:
    """The samples of a LATENT, (segments, 16, 13, height / 8, width / 8).

    Raises `InputError` if they are not segments of the video of `identity`.
    """
    samples, wanted = latent["samples"], identity.motion.shape[1:]
    if samples.is_nested or samples.shape[1:] != wanted or not len(samples):
        found = "nested" if samples.is_nested else " x ".join(map(str, samples.shape[1:]))
        raise InputError(
            f"The latent has the shape {found} (channels, frames, height, width), but a segment of "
            f"this identity has {' x '.join(map(str, wanted))}: connect Sample Segment, or a "
            "sampler that has the latent of Segment Conditioning."
        )
    if not samples.isfinite().all():
        raise InputError(
            "The latent has numbers that are not finite: load the model in bf16 or remove the "
            "LoRA, then sample again."
        )
    return samples


def new_frames(segment: Tensor, latent: dict) -> int:
    """How many new frames a segment of this LATENT has."""
    count = read_new_frames(segment) or latent.get(FRAMES)
    if count is None:
        logger.warning(
            "The latent does not say where its speech ends, so all %d frames are shown. Only the "
            "latents of Sample Segment still say it after they are saved or rebatched.",
            NEW_FRAMES,
        )
        return NEW_FRAMES
    return count


def wrong_size(found: str, frames: Tensor, identity: Identity) -> InputError:
    """The error for frames (..., height, width, 3) that do not have the size of the video."""
    height, width = frames.shape[-3:-1]
    return InputError(
        f"{found} {width} x {height} pixels, and the video has {identity.size[1]} x "
        f"{identity.size[0]}: connect the frames of Decode VAE."
    )


def extend(
    frames: Tensor, vae, identity: Identity, seed: int, index: int, colour_anchor: float = 0
) -> Tensor:
    """The motion latents of segment `index`, (1, 16, 1, height / 8, width / 8).

    It continues from the last two of `frames` (frames, height, width, 3). Frames without the canvas
    are first put back on it. `colour_anchor` is that of `Settings`. Raises `InputError` if there
    are fewer than two frames, or if they have another size.
    """
    height, width = identity.portrait.shape[-2:]
    frames = rgb_images(frames, "The IMAGE on frames", last=MOTION_FRAMES)
    if len(frames) < MOTION_FRAMES:
        raise InputError(
            f"The next segment continues from two frames, and {len(frames)} came in: connect at "
            "least two."
        )
    if frames.shape[1:3] == identity.size:
        frames = on_canvas(identity, frames)
    if frames.shape[1:3] != (height, width):
        raise wrong_size("The frames have", frames, identity)
    frames = anchored(frames, identity, colour_anchor)
    draws = SeededNoise(seed).stream("motion", index)
    with torch.no_grad(), enough_memory("encode the motion frames", VAE_ON_CPU):
        encoder = open_encoder(vae, height, width)
        motion = motion_after(encoder, identity.portrait, frames, draws)
    return motion[:, :, :1].to(vae.output_device, copy=True)


class DecodeVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3DecodeVAE",
            display_name="Decode VAE",
            search_aliases=["vae decode", "latent to video"],
            category=f"{CATEGORY}/segments",
            description="The frames of a segment, decoded a few at a time. The two frames that "
            "repeat the end of the previous segment are left out.",
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="One segment, from Sample Segment or any other sampler."
                ),
                vae_input(),
                identity_input(),
                io.Image.Input(
                    "previous_frames",
                    optional=True,
                    tooltip="The frames of the previous segment. With them, this segment begins "
                    "without a jump.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The segment's new frames."),
                io.Image.Output(
                    display_name="last_frames",
                    tooltip="The last two frames, for Extend With Motion Frames.",
                ),
            ],
        )

    @classmethod
    def execute(cls, latent, vae, identity, previous_frames=None) -> io.NodeOutput:
        shown, last = decode_segment(latent, vae, identity, previous_frames)
        say(f"{len(shown)} frames of {shown.shape[2]} x {shown.shape[1]} pixels")
        return io.NodeOutput(shown, last)


class ExtendWithMotionFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3ExtendWithMotionFrames",
            display_name="Extend With Motion Frames",
            search_aliases=["continue video", "extend video", "motion frames"],
            category=f"{CATEGORY}/segments",
            description="The motion with which the next segment continues from the last two frames "
            "of an image batch.",
            inputs=[
                io.Image.Input(
                    "frames",
                    tooltip="The last two frames are used. You may edit them before this node.",
                ),
                identity_input(),
                vae_input(),
                segment_index_input(
                    "The segment that continues from these frames. The first segment is 0."
                ),
                *settings_inputs("seed", BETWEEN),
            ],
            outputs=[
                MotionSocket.Output(
                    display_name="motion",
                    tooltip="The motion, for Sample Segment or Segment Conditioning.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, frames, identity, vae, segment_index, seed, colour_anchor=0.0
    ) -> io.NodeOutput:
        return io.NodeOutput(extend(frames, vae, identity, seed, segment_index, colour_anchor))
