"""Animate Portrait."""

import logging

from comfy_api.latest import io

from ..hallo3_core.clip.edit import EXAMPLE, edit_of
from ..hallo3_core.media.encoding import STANDARD, Encoding
from ..hallo3_core.sound.audio import sound_of_audio
from .animator import NodeAnimator
from .host.memory import plan
from .host.time_left import ClipTime
from .rendering import clip_outputs, encoding_inputs, render, run_again, soundtrack_input
from .sampling import hallo3_model
from .settings import settings_inputs, settings_of
from .sockets import CATEGORY, identity_input, model_input, prompt_input, speech_input, vae_input

logger = logging.getLogger(__name__)

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
            tooltip="The segments after one with a new seed. again: they are made again, from the "
            "new segment on. stays: they stay as they were, and the new segment fades into the "
            "next one.",
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
            description="A video of the portrait that speaks the whole speech, made segment by "
            "segment. You can stop at any time: finished segments are kept on disk, and "
            "the next run computes only the missing ones.",
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
        return render(cls, animator, animator, identity.size, sound, encoding, edit)
