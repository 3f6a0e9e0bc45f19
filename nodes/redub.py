"""Redub."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from comfy_api.latest import Input, io
from torch import Tensor

from ..hallo3_core import builtin
from ..hallo3_core.clip.redub import (
    REGION,
    REGIONS,
    STRENGTH,
    Footage,
    Frames,
    fitted,
    follow_face,
    pictures,
    still_face,
)
from ..hallo3_core.clip.redub import Redub as RedubAnimator
from ..hallo3_core.media.encoding import STANDARD, Encoding
from ..hallo3_core.media.frames import VideoFile
from ..hallo3_core.media.picture import one_mask, rgb_images, size_of, to_uint8
from ..hallo3_core.media.video import at_25_fps
from ..hallo3_core.network.config import FPS
from ..hallo3_core.portrait.faces import Face
from ..hallo3_core.portrait.track import FaceTrack
from ..hallo3_core.sampling.schedule import spaced
from ..hallo3_core.sound.audio import sound_of_audio
from .animator import NodeAnimator
from .host.model import RunOnce
from .host.onnx import face_finder
from .host.say import say, show
from .host.time_left import ClipTime
from .host.video import frames_of
from .identity import identity_of
from .rendering import clip_outputs, encoding_inputs, render, run_again, soundtrack_input
from .sampling import hallo3_model
from .settings import settings_inputs, settings_of
from .sockets import (
    CATEGORY,
    FaceSocket,
    ReferenceNetwork,
    model_input,
    prompt_input,
    speech_input,
    vae_input,
)


def region_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "region",
            options=list(REGIONS),
            default=REGION,
            tooltip="What is replaced. mouth: mouth and chin. face: the whole face. Its movements "
            "are then new too, and it is less like the source.",
        ),
        io.Float.Input(
            "strength",
            default=STRENGTH,
            min=0.01,
            max=1.0,
            step=0.01,
            tooltip="How strongly the region changes. A lower value keeps more of the source and "
            "of its old mouth. It also takes fewer steps.",
        ),
    ]


class Redub(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3Redub",
            display_name="Redub",
            search_aliases=[
                "lip sync",
                "lipsync",
                "dub",
                "dubbing",
                "video to video",
                "translate video",
                "replace speech",
            ],
            category=CATEGORY,
            description="The video with other words. Only the mouth or the face of one person is "
            "replaced, segment by segment. Everything else stays as it is. Finished segments are "
            "kept on disk.",
            inputs=[
                model_input(),
                vae_input(),
                ReferenceNetwork.Input(
                    "reference_network", tooltip="The reference network, from Load Hallo3 DiT."
                ),
                io.MultiType.Input(
                    "frames",
                    [io.Image, io.Video],
                    tooltip="The video, or frames at 25 a second. A video is read segment by "
                    "segment, so it takes little memory.",
                ),
                speech_input(),
                *region_inputs(),
                *settings_inputs(),
                prompt_input(),
                FaceSocket.Input(
                    "face",
                    optional=True,
                    tooltip="Who speaks, from Find Face on the first frame. Without it, the "
                    "largest face.",
                ),
                io.Mask.Input(
                    "face_mask",
                    optional=True,
                    tooltip="Where the face is in all frames. Connect it if the face is not found.",
                ),
                io.Mask.Input(
                    "region_mask",
                    optional=True,
                    tooltip="What is replaced, as a mask of the first frame. It follows the face. "
                    "Without a mask, region decides.",
                ),
                soundtrack_input(),
                *encoding_inputs(),
            ],
            outputs=clip_outputs(),
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> tuple:
        return run_again(cls)

    @classmethod
    def execute(
        cls,
        model,
        vae,
        reference_network,
        frames,
        speech,
        region,
        strength,
        positive=None,
        face=None,
        face_mask=None,
        region_mask=None,
        soundtrack=None,
        codec=STANDARD.codec,
        crf=STANDARD.crf,
        **inputs,
    ) -> io.NodeOutput:
        hallo3_model(model)
        settings, source = settings_of(inputs), partial(at_video_rate, frames)
        size = size_of(next(pictures(source))[..., 0])
        where = None if face_mask is None else one_mask(face_mask, size)
        mask = None if region_mask is None else one_mask(region_mask, size)
        show("following the face")
        found, track = find_and_follow(source, face, where)
        heard = sound_of_audio(soundtrack, "The soundtrack") if soundtrack else speech.sound
        speech = fitted(speech, len(track))
        network = RunOnce(reference_network)
        footage = Footage(source(), track, network.config.canvas[0])
        square = footage.portrait, footage.face_region(found.box)
        identity = identity_of(vae, network, *square, settings.seed, found.embedding, "published")
        if reference_network.model.built_in:
            say(builtin.DRAWN_ONLY)
        clip = ClipTime(speech.segments, len(spaced(settings.steps, strength)))
        animator = NodeAnimator(model, vae, identity, speech, positive, settings, clip)
        redub = RedubAnimator(animator, footage, footage.region(found.box, region, mask), strength)
        return render(cls, animator, redub, footage.size, heard, Encoding(codec, crf))


def at_video_rate(frames: Tensor | Input.Video) -> Iterator[np.ndarray]:
    """The frames of an IMAGE or a VIDEO at 25 fps, (height, width, 3) uint8.

    An IMAGE has 25 frames a second. Of a VIDEO made of an IMAGE, some are repeated or left out.
    """
    source = frames_of(frames)
    if isinstance(source, VideoFile):
        yield from at_25_fps(source.frames(), source.start)
        return
    step = float(frames.get_frame_rate()) / FPS if isinstance(frames, Input.Video) else 1
    for number in range(max(round(len(source) / step), 1)):
        place = min(int((number + 0.5) * step), len(source) - 1)
        (image,) = rgb_images(source[place, None], "The IMAGE on frames")
        yield to_uint8(image).numpy()


def find_and_follow(
    source: Frames, face: Face | None, mask: Tensor | None
) -> tuple[Face, FaceTrack]:
    """The face in the first frame, and its track."""
    if mask is not None:
        return still_face(source, mask)
    return follow_face(source, face_finder(), near=face.box if face else None)
