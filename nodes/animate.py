"""Animate Portrait, and the nodes that it expands to."""

import logging
from functools import partial
from pathlib import Path
from uuid import uuid4

import folder_paths
import torch
import torch.nn.functional as F
from comfy_api.latest import InputImpl, io
from comfy_execution.graph_utils import GraphBuilder, Node
from server import PromptServer

from ..hallo3_core.animate import seconds_to_decode
from ..hallo3_core.config import FPS
from ..hallo3_core.video import join, sound_of_waveform, write_pictures
from .host.memory import plan
from .host.time_left import begin, running_clip
from .host.vae import decode_latent
from .sampling import FRAMES, hallo3_model, motion_input
from .sockets import (
    CATEGORY,
    MotionSocket,
    SegmentSocket,
    StoredSegment,
    guidance_input,
    identity_input,
    interval_inputs,
    model_input,
    prompt_input,
    sampler_input,
    seed_input,
    segment_index_input,
    speech_input,
    steps_input,
    vae_input,
)
from .video import decode_segment, extend, latent_input

logger = logging.getLogger(__name__)

PARTS = f"{CATEGORY}/parts"
GROUP = 8
"""How many segments, or groups of them, follow one another in one expansion."""
SAMPLED_WITH = (
    "model",
    "identity",
    "speech",
    "positive",
    "steps",
    "guidance",
    "sampler",
    "seed",
    "guidance_start",
    "guidance_end",
)


class Expansion:
    """The graph that a node expands to; its nodes can take inputs as that node was given them."""

    def __init__(self, hidden: io.HiddenHolder):
        self.given = hidden.dynprompt.get_node(hidden.unique_id)["inputs"]
        self.graph = GraphBuilder()

    def take(self, *names: str) -> dict[str, object]:
        return {name: self.given[name] for name in names if name in self.given}

    def node(self, kind: str, index: int, taken: tuple[str, ...], **inputs) -> Node:
        return self.graph.node(kind, f"{kind} {index}", **self.take(*taken), **inputs)


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
                *interval_inputs(),
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
        guidance_start=0.0,
        guidance_end=1.0,
    ) -> io.NodeOutput:
        hallo3_model(model)
        logger.info("Hallo3 memory: %s", "; ".join(plan(model, vae).lines()))
        decoding = seconds_to_decode(partial(decode_latent, vae), identity)
        begin(speech.segments, steps, decoding)
        expansion = Expansion(cls.hidden)
        segments = expansion.node(
            "Hallo3AnimateSegments", 0, (*SAMPLED_WITH, "vae"), first=0, count=speech.segments
        )
        segment = segments.out(0)
        frames = None
        prompt = cls.hidden.dynprompt.get_original_prompt()
        if frames_connected(prompt, cls.hidden.unique_id):
            images = expansion.node("Hallo3SegmentImages", 0, ("vae", "identity"), segment=segment)
            frames = images.out(0)
        joined = expansion.node("Hallo3JoinSegments", 0, ("speech", "soundtrack"), segment=segment)
        audio, video = joined.out(0), joined.out(1)
        return io.NodeOutput(frames, audio, float(FPS), video, expand=expansion.graph.finalize())


def frames_connected(prompt: dict, own_id: str) -> bool:
    """Whether any node of a prompt takes the first output of the node `own_id`."""
    links = (value for node in prompt.values() for value in node["inputs"].values())
    return any(link == [own_id, 0] for link in links)


class AnimateSegments(io.ComfyNode):
    """Lays out some segments, one after the other, or ever smaller groups of them.

    ComfyUI's cache knows a node by all the nodes before it, and finds them by recursion: in a
    single chain a quarter of an hour of speech would be too deep, and its keys too large.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3AnimateSegments",
            display_name="Animate Segments",
            category=PARTS,
            description="Part of Animate Portrait: samples and stores segments that follow one "
            "another.",
            inputs=[
                model_input(),
                vae_input(),
                identity_input(),
                speech_input(),
                prompt_input(),
                steps_input(),
                guidance_input(),
                sampler_input(),
                seed_input(),
                segment_index_input("The first of the segments", name="first"),
                io.Int.Input("count", default=1, min=1, max=99_999, tooltip="How many segments."),
                SegmentSocket.Input("previous", optional=True, tooltip="The segment before."),
                motion_input(),
                *interval_inputs(),
            ],
            outputs=[
                SegmentSocket.Output(display_name="segment", tooltip="The last one."),
                MotionSocket.Output(
                    "motion_out", display_name="motion", tooltip="For the segment after."
                ),
            ],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, first: int, count: int, **inputs) -> io.NodeOutput:
        expansion = Expansion(cls.hidden)
        previous, motion = expansion.take("previous"), expansion.take("motion")
        size = 1
        while size * GROUP < count:
            size *= GROUP
        for index in range(first, first + count, size):
            if size == 1:
                latent = expansion.node(
                    "Hallo3SampleSegment", index, SAMPLED_WITH, segment_index=index, **motion
                )
                done = expansion.node(
                    "Hallo3StoreSegment",
                    index,
                    ("vae", "identity", "seed"),
                    segment_index=index,
                    latent=latent.out(0),
                    **previous,
                )
            else:
                done = expansion.node(
                    "Hallo3AnimateSegments",
                    index,
                    (*SAMPLED_WITH, "vae"),
                    first=index,
                    count=min(size, first + count - index),
                    **previous,
                    **motion,
                )
            previous, motion = {"previous": done.out(0)}, {"motion": done.out(1)}
        return io.NodeOutput(done.out(0), done.out(1), expand=expansion.graph.finalize())


class StoreSegment(io.ComfyNode):
    """Decodes a segment to a file, so that a long video does not stay in memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3StoreSegment",
            display_name="Store Segment",
            category=PARTS,
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
        before = previous.last[None] / 255 if previous else None
        frames, last_frames = decode_segment(latent, vae, identity, before)
        folder = Path(folder_paths.get_output_directory()) / "hallo3_segments"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{segment_index:05}_{uuid4().hex[:8]}.mp4"
        write_pictures(file, frames)
        last = (frames[-1] * 255).round().byte()
        stored = StoredSegment(latent["samples"], len(frames), last, file, previous)
        motion = extend(last_frames, vae, identity, seed, segment_index + 1)
        running_clip(segment_index).segment()
        return io.NodeOutput(stored, motion)


class SegmentImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3SegmentImages",
            display_name="Segment Images",
            category=PARTS,
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
        batches, frames = [], None
        for part in segment.all():
            latent = {"samples": part.latents, FRAMES: part.frames}
            frames, _ = decode_segment(latent, vae, identity, frames)
            batches.append(frames)
        return io.NodeOutput(torch.cat(batches))


class JoinSegments(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3JoinSegments",
            display_name="Join Segments",
            category=PARTS,
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
