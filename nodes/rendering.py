"""What Animate Portrait and Redub share: the making of a clip, and its outputs."""

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

from ..hallo3_core.clip.edit import WHOLE, Edit
from ..hallo3_core.clip.segments import Animator, Segment, make_segments
from ..hallo3_core.media.encoding import CODECS, MOST_CRF, STANDARD, Encoding
from ..hallo3_core.media.video import VideoWriter
from ..hallo3_core.network.config import FPS, Size
from ..hallo3_core.sound.sound import Sound
from ..hallo3_core.store.clip_store import NOTHING_KEPT, ClipStore
from ..hallo3_core.store.fingerprint import Unknown, fingerprint
from .animator import NodeAnimator
from .host.fingerprint import parts_of
from .host.images import intermediate
from .host.say import say
from .host.store import segment_store
from .host.time_left import ClipTime
from .host.video import temporary_file
from .sampling import audio_part

logger = logging.getLogger(__name__)

_made: list[Path] = []
"""The videos that were given out, in ComfyUI's folder of temporary files."""


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


def render(
    node: type[io.ComfyNode],
    animator: NodeAnimator,
    maker: Animator,
    size: Size,
    sound: Sound,
    encoding: Encoding,
    edit: Edit = WHOLE,
) -> io.NodeOutput:
    """Make a clip, and return it as `clip_outputs`.

    `maker` makes the segments, with the `animator` or as the animator itself. `size` is height and
    width of the video, and `sound` its sound, as long as the whole clip.
    """
    speech = animator.speech
    connected = frames_connected(node.hidden.dynprompt, node.hidden.unique_id)
    kept = kept_of(animator, maker.decides())
    segments = make_segments(
        maker,
        animator.identity,
        speech,
        kept,
        edit=edit,
        encoding=encoding,
        frames=connected,
    )
    video = VideoWriter(temporary_file(), *size, sound=edit.heard(sound, speech), encoding=encoding)
    unfinished = unfinished_video(kept)
    frames = write_video(segments, video, animator.clip, connected, unfinished)
    unfinished.unlink(missing_ok=True)
    animator.clip.done("done")
    audio = audio_part(sound, edit.first, edit.end(speech) - edit.first)
    return io.NodeOutput(frames, audio, float(FPS), InputImpl.VideoFromFile(str(video.path)))


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
                    clip.finish(as_floats(segment.frames[-1]))
    except BaseException:
        if video.saved:
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(video.saved, unfinished)
            say(f"stopped; the first {video.seconds:.2f} s are in {unfinished}")
        raise
    _made.append(video.path)
    return intermediate(as_floats(torch.cat(frames))) if connected else None


def as_floats(frames: torch.Tensor) -> torch.Tensor:
    """Frames in [0, 1]. Those of a redub are bytes."""
    return frames / 255 if frames.dtype == torch.uint8 else frames
