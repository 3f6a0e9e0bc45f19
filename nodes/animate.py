"""Animate Portrait."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import folder_paths
import torch
from comfy_api.latest import InputImpl, io
from comfy_execution.graph import DynamicPrompt
from server import PromptServer

from ..hallo3_core.animate import Segment, make_segments
from ..hallo3_core.media.video import VideoWriter
from ..hallo3_core.network.config import FPS
from ..hallo3_core.sound.audio import sound_of_audio
from ..hallo3_core.sound.sound import Sound
from ..hallo3_core.store.fingerprint import Unknown, fingerprint
from ..hallo3_core.store.segment_store import NOTHING_KEPT, ClipStore
from .animator import NodeAnimator
from .host.fingerprint import parts_of
from .host.images import kept as as_kept
from .host.memory import plan
from .host.say import say
from .host.store import segment_store
from .host.time_left import ClipTime
from .sampling import hallo3_model
from .sockets import (
    CATEGORY,
    guidance_input,
    identity_input,
    interval_inputs,
    model_input,
    prompt_input,
    sampler_input,
    seed_input,
    speech_input,
    steps_input,
    vae_input,
)

logger = logging.getLogger(__name__)

_made: list[Path] = []
"""Videos that were handed on, in ComfyUI's folder of temporary files."""


class AnimatePortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3AnimatePortrait",
            display_name="Animate Portrait",
            category=CATEGORY,
            description="A whole speech, segment by segment. Finished segments are kept on disk: "
            "stop, and queue again, and only what is missing is computed.",
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
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> tuple:
        """Run again when the frames are connected later, or when a video was deleted.

        The inputs show neither. All segments are in the store then.
        """
        server = getattr(PromptServer, "instance", None)
        running = server.prompt_queue.currently_running.values() if server else ()
        connected = [
            is_linked(prompt.values(), [name, 0])
            for _, _, prompt, *_ in running
            for name, node in prompt.items()
            if node["class_type"] == "Hallo3AnimatePortrait"
        ]
        return *connected, sum(not path.exists() for path in _made)

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
        sound = speech.sound
        if soundtrack is not None:
            sound = sound_of_audio(soundtrack, "The soundtrack")
        logger.info("Hallo3 memory: %s", "; ".join(plan(model, vae).lines()))
        clip = ClipTime(speech.segments, steps)
        animator = NodeAnimator(
            model=model,
            vae=vae,
            identity=identity,
            speech=speech,
            positive=positive,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            seed=seed,
            interval=(guidance_start, guidance_end),
            clip=clip,
        )
        connected = frames_connected(cls.hidden.dynprompt, cls.hidden.unique_id)
        kept = kept_of(animator)
        segments = make_segments(animator, identity, speech, kept, frames=connected)
        unfinished = unfinished_video(kept)
        frames, file = write_video(segments, identity.size, sound, clip, connected, unfinished)
        unfinished.unlink(missing_ok=True)
        clip.done("done")
        audio = {"waveform": sound.cut(0, speech.frames / FPS)[None], "sample_rate": sound.rate}
        return io.NodeOutput(frames, audio, float(FPS), InputImpl.VideoFromFile(str(file)))


def frames_connected(prompt: DynamicPrompt, own_id: str) -> bool:
    """Whether any node takes the first output of the node `own_id`."""
    return is_linked(map(prompt.get_node, prompt.all_node_ids()), [own_id, 0])


def is_linked(nodes, output: list) -> bool:
    return any(value == output for node in nodes for value in node["inputs"].values())


def kept_of(animator: NodeAnimator) -> ClipStore:
    """The store for a clip; none, which is told, if another pack has patched the model."""
    try:
        clip = fingerprint(animator.decides(), parts_of)
    except Unknown as unknown:
        logger.warning(
            "The model carries %s, and what that does cannot be told: finished segments of this "
            "clip are not kept.",
            unknown,
        )
        return NOTHING_KEPT
    return ClipStore(segment_store(), clip, animator.speech)


def unfinished_video(kept: ClipStore) -> Path:
    """Where the beginning of a clip is saved if it is interrupted: a name of the clip's own."""
    clip = kept.name(0, "") or uuid4().hex
    return Path(folder_paths.get_output_directory()) / f"hallo3_unfinished_{clip[:8]}.mp4"


def write_video(
    segments: Iterator[Segment],
    size: tuple[int, int],
    sound: Sound,
    clip: ClipTime,
    connected: bool,
    unfinished: Path,
) -> tuple[torch.Tensor | None, Path]:
    """All frames, if they are connected, and the video in a temporary file.

    If it is interrupted, what is done is saved as `unfinished`.
    """
    file = Path(folder_paths.get_temp_directory()) / f"hallo3_{uuid4().hex[:8]}.mp4"
    file.parent.mkdir(parents=True, exist_ok=True)
    video, frames = VideoWriter(file, *size, sound), []
    try:
        with video:
            for segment in segments:
                video.append(segment.piece)
                if connected:
                    frames.append(segment.frames.cpu())
                if segment.finished:
                    clip.take(segment.index)
                else:
                    clip.segment()
    except BaseException:
        if video.saved:
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(video.saved, unfinished)
            say(f"stopped; the {video.seconds:.2f} s that are done are in {unfinished}")
        raise
    _made.append(file)
    return as_kept(torch.cat(frames)) if connected else None, file
