"""Animate Portrait."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import folder_paths
import torch
from comfy_api.latest import InputImpl, io
from comfy_execution.graph import DynamicPrompt
from server import PromptServer

from ..hallo3_core.clip.edit import EXAMPLE, edit_of
from ..hallo3_core.clip.segments import Segment, make_segments
from ..hallo3_core.media.encoding import CODECS, MOST_CRF, STANDARD, Encoding
from ..hallo3_core.media.video import VideoWriter
from ..hallo3_core.network.config import FPS
from ..hallo3_core.sound.audio import sound_of_audio
from ..hallo3_core.store.fingerprint import Unknown, fingerprint
from ..hallo3_core.store.segment_store import NOTHING_KEPT, ClipStore
from .animator import NodeAnimator
from .host.fingerprint import parts_of
from .host.images import kept as as_kept
from .host.memory import plan
from .host.say import say
from .host.store import segment_store
from .host.time_left import ClipTime
from .host.video import temporary_file
from .sampling import audio_part, hallo3_model
from .settings import settings_inputs, settings_of
from .sockets import CATEGORY, identity_input, model_input, prompt_input, speech_input, vae_input

logger = logging.getLogger(__name__)

_made: list[Path] = []
"""The videos that were given out, in ComfyUI's folder of temporary files."""


AGAIN, STAYS = "again", "stays"


def edit_inputs() -> list[io.Input]:
    """Inputs for a part of the clip, and for other takes of single segments."""
    seconds = {"min": 0.0, "max": 360_000.0, "step": 0.04, "optional": True, "advanced": True}
    return [
        io.String.Input(
            "segment_seeds",
            default="",
            optional=True,
            advanced=True,
            tooltip="Makes single segments again: the number of a segment and its new seed, such "
            f"as {EXAMPLE}. Other segments come from the disk.",
        ),
        io.Combo.Input(
            "following",
            options=[AGAIN, STAYS],
            default=AGAIN,
            optional=True,
            advanced=True,
            tooltip="What follows a segment with a new seed. again: it continues from the new "
            "segment. stays: it is as before, and the new segment fades over to it.",
        ),
        io.Float.Input(
            "start", default=0.0, tooltip="Second of the speech where the video begins.", **seconds
        ),
        io.Float.Input(
            "end",
            default=0.0,
            tooltip="Second of the speech where the video ends. 0: the end of the speech.",
            **seconds,
        ),
    ]


def encoding_inputs() -> list[io.Input]:
    """Inputs for the quality of the video."""
    codecs = ". ".join(f"{name}: {codec.help}" for name, codec in CODECS.items())
    return [
        io.Combo.Input(
            "codec",
            options=list(CODECS),
            default=STANDARD.codec,
            optional=True,
            advanced=True,
            tooltip=f"{codecs}.",
        ),
        io.Int.Input(
            "crf",
            default=STANDARD.crf,
            min=0,
            max=MOST_CRF,
            optional=True,
            advanced=True,
            tooltip="The quality of the video. 0 is best, 40 gives the smallest file. lossless "
            "does not use it.",
        ),
    ]


class AnimatePortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3AnimatePortrait",
            display_name="Animate Portrait",
            search_aliases=[
                "lip sync",
                "lipsync",
                "talking head",
                "talking portrait",
                "talking photo",
                "avatar",
                "audio to video",
                "speech to video",
                "sing",
                "song",
            ],
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
                *edit_inputs(),
                *encoding_inputs(),
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
        segment_seeds="",
        following=AGAIN,
        start=0.0,
        end=0.0,
        codec=STANDARD.codec,
        crf=STANDARD.crf,
        **inputs,
    ) -> io.NodeOutput:
        hallo3_model(model)
        settings, encoding = settings_of(inputs), Encoding(codec, crf)
        edit = edit_of(speech, segment_seeds, following == STAYS, start, end)
        sound = speech.sound
        if soundtrack is not None:
            sound = sound_of_audio(soundtrack, "The soundtrack")
        logger.info("Hallo3 memory: %s", "; ".join(plan(model, vae).lines()))
        clip = ClipTime(edit.segments(speech), settings.steps)
        animator = NodeAnimator(model, vae, identity, speech, positive, settings, clip)
        connected = frames_connected(cls.hidden.dynprompt, cls.hidden.unique_id)
        kept = kept_of(animator, animator.decides())
        wanted: dict[str, Any] = {"edit": edit, "encoding": encoding, "frames": connected}
        segments = make_segments(animator, identity, speech, kept, **wanted)
        unfinished, file = unfinished_video(kept), temporary_file()
        (height, width), heard = identity.size, edit.heard(sound, speech)
        video = VideoWriter(file, height, width, heard, encoding=encoding)
        frames = write_video(segments, video, clip, connected, unfinished)
        unfinished.unlink(missing_ok=True)
        clip.done("done")
        audio = audio_part(sound, edit.first, edit.end(speech) - edit.first)
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
    video: VideoWriter,
    clip: ClipTime,
    connected: bool,
    unfinished: Path,
) -> torch.Tensor | None:
    """Write the video. Returns all frames, if they are connected.

    After an interrupt, the finished part of the video is saved as `unfinished`.
    """
    frames = []
    try:
        with video:
            for segment in segments:
                video.append(segment.piece)
                if segment.frames is not None and connected:
                    frames.append(segment.frames.cpu())
                if segment.taken:
                    clip.take(segment.index)
                elif segment.frames is None or not len(segment.frames):
                    clip.segment()  # it only leads to the part that is shown
                else:
                    clip.finish(segment.frames[-1])
    except BaseException:
        if video.saved:
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(video.saved, unfinished)
            say(f"stopped; the first {video.seconds:.2f} s are in {unfinished}")
        raise
    _made.append(video.path)
    return as_kept(as_floats(torch.cat(frames))) if connected else None


def as_floats(frames: torch.Tensor) -> torch.Tensor:
    """Frames in [0, 1]. Those of a redub are bytes."""
    return frames / 255 if frames.dtype == torch.uint8 else frames
