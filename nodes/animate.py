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
from .sampling import audio_part, hallo3_model
from .settings import settings_inputs, settings_of
from .sockets import CATEGORY, identity_input, model_input, prompt_input, speech_input, vae_input

logger = logging.getLogger(__name__)

_made: list[Path] = []
"""The videos that were given out, in ComfyUI's folder of temporary files."""


class AnimatePortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3AnimatePortrait",
            display_name="Animate Portrait",
            category=CATEGORY,
            description="Animates the portrait with the whole speech, segment by segment. "
            "You can stop at any time: finished segments are kept on disk, and the next run "
            "computes only the missing ones.",
            inputs=[
                model_input(),
                vae_input(),
                identity_input(),
                speech_input(),
                prompt_input(),
                soundtrack_input(),
                *settings_inputs(),
            ],
            outputs=clip_outputs(),
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> tuple:
        """Run again when frames are connected later, or when a video was deleted.

        The inputs do not show either of these. The second run takes all segments from the store.
        """
        return run_again(cls)

    @classmethod
    def execute(
        cls,
        model,
        vae,
        identity,
        speech,
        positive=None,
        soundtrack=None,
        **inputs,
    ) -> io.NodeOutput:
        hallo3_model(model)
        settings = settings_of(inputs)
        sound = speech.sound
        if soundtrack is not None:
            sound = sound_of_audio(soundtrack, "The soundtrack")
        logger.info("Hallo3 memory: %s", "; ".join(plan(model, vae).lines()))
        clip = ClipTime(speech.segments, settings.steps)
        animator = NodeAnimator(model, vae, identity, speech, positive, settings, clip)
        connected = frames_connected(cls.hidden.dynprompt, cls.hidden.unique_id)
        kept = kept_of(animator, animator.decides())
        segments = make_segments(animator, identity, speech, kept, frames=connected)
        unfinished = unfinished_video(kept)
        frames, file = write_video(segments, identity.size, sound, clip, connected, unfinished)
        unfinished.unlink(missing_ok=True)
        clip.done("done")
        audio = audio_part(sound, 0, speech.frames)
        return io.NodeOutput(frames, audio, float(FPS), InputImpl.VideoFromFile(str(file)))


def soundtrack_input() -> io.Audio.Input:
    return io.Audio.Input(
        "soundtrack",
        optional=True,
        tooltip="The sound of the video. Without it, the sound is the speech.",
    )


def clip_outputs() -> list[io.Output]:
    """A whole clip as frames and sound, and as a video."""
    return [
        io.Image.Output(
            display_name="frames",
            tooltip="All frames. For ten minutes of video at full size, they take 41 GB of memory.",
        ),
        io.Audio.Output(display_name="audio", tooltip="The sound, as long as the frames."),
        io.Float.Output(
            display_name="frame_rate", tooltip="The number of frames per second, always 25."
        ),
        io.Video.Output(
            display_name="video",
            tooltip="The video with its sound. It takes little memory at any length.",
        ),
    ]


def run_again(node: type[io.ComfyNode]) -> tuple:
    """What `fingerprint_inputs` of a node with `clip_outputs` returns."""
    server = getattr(PromptServer, "instance", None)
    running = server.prompt_queue.currently_running.values() if server else ()
    connected = [
        is_linked(prompt.values(), [name, 0])
        for _, _, prompt, *_ in running
        for name, entry in prompt.items()
        if entry["class_type"] == node.GET_SCHEMA().node_id
    ]
    return *connected, sum(not path.exists() for path in _made)


def frames_connected(prompt: DynamicPrompt, own_id: str) -> bool:
    """Whether the first output of the node `own_id` is connected to any node."""
    return is_linked(map(prompt.get_node, prompt.all_node_ids()), [own_id, 0])


def is_linked(nodes, output: list) -> bool:
    return any(value == output for node in nodes for value in node["inputs"].values())


def kept_of(animator: NodeAnimator, decides: tuple) -> ClipStore:
    """The store for the segments of a clip. See `decides` of the animator.

    If another pack has patched the model, nothing is kept, and a warning says so.
    """
    try:
        clip = fingerprint(decides, parts_of)
        fingerprint(animator.positive, parts_of)
    except Unknown as unknown:
        logger.warning(
            "The model has a patch that Hallo3 does not know (%s): the finished segments of this "
            "clip are not kept.",
            unknown,
        )
        return NOTHING_KEPT
    return ClipStore(segment_store(), clip, animator.speech)


def unfinished_video(kept: ClipStore) -> Path:
    """Where the finished part of a clip is saved if it is interrupted. Each clip has a name."""
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

    After an interrupt, the finished part of the video is saved as `unfinished`.
    """
    file = Path(folder_paths.get_temp_directory()) / f"hallo3_{uuid4().hex[:8]}.mp4"
    file.parent.mkdir(parents=True, exist_ok=True)
    video, frames = VideoWriter(file, *size, sound), []
    try:
        with video:
            for segment in segments:
                video.append(segment.piece)
                if segment.frames is not None and connected:
                    frames.append(segment.frames.cpu())
                if segment.finished:
                    clip.take(segment.index)
                else:
                    clip.segment()
    except BaseException:
        if video.saved:
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(video.saved, unfinished)
            say(f"stopped; the first {video.seconds:.2f} s are in {unfinished}")
        raise
    _made.append(file)
    return as_kept(as_floats(torch.cat(frames))) if connected else None, file


def as_floats(frames: torch.Tensor) -> torch.Tensor:
    """Frames in [0, 1]. Those of a redub are bytes."""
    return frames / 255 if frames.dtype == torch.uint8 else frames
