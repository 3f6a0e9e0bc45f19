"""Decode VAE, Extend With Motion Frames, Animate Portrait and the nodes it expands to."""

from pathlib import Path
from uuid import uuid4

import folder_paths
import torch
import torch.nn.functional as F
from comfy_api.latest import InputImpl, io
from comfy_execution.graph_utils import GraphBuilder
from server import PromptServer
from torch import Tensor

from ..hallo3_core.config import FPS, MOTION_FRAMES, NEW_FRAMES
from ..hallo3_core.errors import InputError
from ..hallo3_core.noise import SeededNoise
from ..hallo3_core.portrait import Identity
from ..hallo3_core.segments import motion_latents
from ..hallo3_core.video import join, sound_of_waveform, write_pictures
from .host.vae import decode_latent, open_encoder
from .sampling import FRAMES, hallo3_model
from .sockets import (
    CATEGORY,
    MotionSocket,
    SegmentSocket,
    StoredSegment,
    guidance_input,
    identity_input,
    model_input,
    prompt_input,
    sampler_input,
    seed_input,
    segment_index_input,
    speech_input,
    steps_input,
    vae_input,
)


def latent_input() -> io.Latent.Input:
    return io.Latent.Input("latent", tooltip="One segment, from Sample Segment or any sampler.")


def decode_segment(latent: dict, vae, identity: Identity) -> tuple[Tensor, Tensor]:
    """New frames of a segment as the picture has them, and its last two on the whole canvas."""
    new = latent.get(FRAMES, NEW_FRAMES)
    frames = decode_latent(vae, latent["samples"], MOTION_FRAMES + new)
    return frames[MOTION_FRAMES:, :, identity.columns], frames[-MOTION_FRAMES:]


def extend(frames: Tensor, vae, identity: Identity, seed: int, index: int) -> Tensor:
    """Motion for segment `index`, which continues the last two of `frames`.

    Frames of the picture's size are put back on the canvas first.
    """
    height, width = identity.portrait.shape[-2:]
    frames = frames[-MOTION_FRAMES:, ..., :3]
    if len(frames) < MOTION_FRAMES:
        raise InputError(f"Motion takes two frames, this is {len(frames)}: connect more.")
    if frames.shape[1:3] == identity.size:
        left = identity.columns.start or 0
        frames = F.pad(frames, (0, 0, left, width - left - frames.shape[2]))
    if frames.shape[1:3] != (height, width):
        found = f"{frames.shape[2]} x {frames.shape[1]}"
        raise InputError(
            f"The frames have {found} pixels, the video {identity.size[1]} x {identity.size[0]}: "
            "connect them as Decode VAE gives them."
        )
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
            inputs=[latent_input(), vae_input(), identity_input()],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The segment's new frames."),
                io.Image.Output(
                    display_name="last_frames",
                    tooltip="The last two, for Extend With Motion Frames.",
                ),
            ],
        )

    @classmethod
    def execute(cls, latent, vae, identity) -> io.NodeOutput:
        return io.NodeOutput(*decode_segment(latent, vae, identity))


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


class AnimatePortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3AnimatePortrait",
            display_name="Animate Portrait",
            category=CATEGORY,
            description="A whole speech, segment by segment. Finished segments are kept: stop, "
            "and queue again, and only what is missing is computed.",
            inputs=[
                model_input(),
                vae_input(),
                identity_input(),
                speech_input(),
                prompt_input(),
                io.Audio.Input(
                    "soundtrack",
                    optional=True,
                    tooltip="What the video sounds like, if not the speech itself.",
                ),
                steps_input(),
                guidance_input(),
                sampler_input(),
                seed_input(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="frames",
                    tooltip="All frames; ten minutes of them are 41 GB at full size.",
                ),
                io.Audio.Output(display_name="audio", tooltip="As long as the frames."),
                io.Float.Output(display_name="frame_rate", tooltip="25."),
                io.Video.Output(display_name="video", tooltip="Takes little memory at any length."),
            ],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> list[bool]:
        """Expand again when the frames are connected later, which the inputs do not show."""
        server = getattr(PromptServer, "instance", None)
        running = server.prompt_queue.currently_running.values() if server else ()
        return [
            frames_connected(prompt, name)
            for _, _, prompt, *_ in running
            for name, node in prompt.items()
            if node["class_type"] == "Hallo3AnimatePortrait"
        ]

    @classmethod
    def execute(
        cls,
        model,
        vae,
        identity,
        speech,
        steps,
        guidance,
        sampler,
        seed,
        positive=None,
        soundtrack=None,
    ) -> io.NodeOutput:
        hallo3_model(model)
        dynprompt, own_id = cls.hidden.dynprompt, cls.hidden.unique_id
        given = dynprompt.get_node(own_id)["inputs"]
        graph = GraphBuilder()

        def node(kind: str, index: int | str, inputs: tuple[str, ...], **links):
            inputs = {name: given[name] for name in inputs if name in given}
            return graph.node(kind, f"{kind} {index}", **inputs, **links)

        segment = motion = None
        for index in range(speech.segments):
            own = {"segment_index": index}
            if motion:
                own["motion"] = motion
            latent = node("Hallo3SampleSegment", index, SAMPLED_WITH, **own)
            own = {"segment_index": index, "latent": latent.out(0)}
            if segment:
                own["previous"] = segment
            stored = node("Hallo3StoreSegment", index, ("vae", "identity", "seed"), **own)
            segment, motion = stored.out(0), stored.out(1)

        frames = None
        if frames_connected(dynprompt.get_original_prompt(), own_id):
            frames = node("Hallo3SegmentImages", 0, ("vae", "identity"), segment=segment).out(0)
        joined = node("Hallo3JoinSegments", 0, ("speech", "soundtrack"), segment=segment)
        return io.NodeOutput(
            frames, joined.out(0), float(FPS), joined.out(1), expand=graph.finalize()
        )


def frames_connected(prompt: dict, own_id: str) -> bool:
    """Whether any node of a prompt takes the first output of the node `own_id`."""
    links = (value for node in prompt.values() for value in node["inputs"].values())
    return any(link == [own_id, 0] for link in links)


SAMPLED_WITH = (
    "model",
    "identity",
    "speech",
    "positive",
    "steps",
    "guidance",
    "sampler",
    "seed",
)


class StoreSegment(io.ComfyNode):
    """Decodes a segment to a file, so that a long video does not stay in memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3StoreSegment",
            display_name="Store Segment",
            category=f"{CATEGORY}/parts",
            description="Part of Animate Portrait: decodes a segment to a file and keeps what the "
            "next one continues.",
            inputs=[
                latent_input(),
                vae_input(),
                identity_input(),
                segment_index_input("Which segment this is"),
                seed_input(),
                SegmentSocket.Input("previous", optional=True, tooltip="The segment before."),
            ],
            outputs=[
                SegmentSocket.Output(display_name="segment", tooltip="For Join Segments."),
                MotionSocket.Output(display_name="motion", tooltip="For the next Sample Segment."),
            ],
        )

    @classmethod
    def execute(cls, latent, vae, identity, segment_index, seed, previous=None) -> io.NodeOutput:
        frames, last_frames = decode_segment(latent, vae, identity)
        folder = Path(folder_paths.get_output_directory()) / "hallo3_segments"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{segment_index:05}_{uuid4().hex[:8]}.mp4"
        write_pictures(file, frames)
        stored = StoredSegment(latent["samples"], len(frames), file, previous)
        motion = extend(last_frames, vae, identity, seed, segment_index + 1)
        return io.NodeOutput(stored, motion)


class SegmentImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3SegmentImages",
            display_name="Segment Images",
            category=f"{CATEGORY}/parts",
            description="Part of Animate Portrait: all frames of a segment and those before it.",
            inputs=[
                SegmentSocket.Input("segment", tooltip="The last segment."),
                vae_input(),
                identity_input(),
            ],
            outputs=[io.Image.Output(display_name="frames", tooltip="All frames.")],
        )

    @classmethod
    def execute(cls, segment, vae, identity) -> io.NodeOutput:
        frames = [
            decode_segment({"samples": part.latents, FRAMES: part.frames}, vae, identity)[0]
            for part in segment.all()
        ]
        return io.NodeOutput(torch.cat(frames))


class JoinSegments(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3JoinSegments",
            display_name="Join Segments",
            category=f"{CATEGORY}/parts",
            description="Part of Animate Portrait: the files of all segments as one video.",
            inputs=[
                SegmentSocket.Input("segment", tooltip="The last segment."),
                speech_input(),
                io.Audio.Input("soundtrack", optional=True, tooltip="In place of the speech."),
            ],
            outputs=[
                io.Audio.Output(display_name="audio", tooltip="As long as the frames."),
                io.Video.Output(display_name="video", tooltip="The whole video."),
            ],
        )

    @classmethod
    def execute(cls, segment, speech, soundtrack=None) -> io.NodeOutput:
        waveform, rate = speech.waveform, speech.rate
        if soundtrack is not None:
            waveform, rate = soundtrack["waveform"][0], soundtrack["sample_rate"]
        parts = segment.all()
        samples = round(sum(part.frames for part in parts) / FPS * rate)
        waveform = F.pad(waveform, (0, samples - waveform.shape[-1]))
        file = Path(folder_paths.get_temp_directory()) / f"hallo3_{uuid4().hex[:8]}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        join([part.file for part in parts], file, sound_of_waveform(waveform, rate))
        audio = {"waveform": waveform[None], "sample_rate": rate}
        return io.NodeOutput(audio, InputImpl.VideoFromFile(str(file)))
