"""Speech Strength, Speaker and Dialogue: how strongly somebody speaks, and who of several."""

import torch
from comfy_api.input import CurveInput
from comfy_api.latest import io

from ..hallo3_core.errors import InputError
from ..hallo3_core.media.picture import one_mask, size_of
from ..hallo3_core.network.config import FPS
from ..hallo3_core.speech.dialogue import Dialogue as CoreDialogue
from ..hallo3_core.speech.dialogue import Speaker as CoreSpeaker
from ..hallo3_core.speech.dialogue import in_turns
from ..hallo3_core.speech.encode import MOST_STRENGTH, Speech
from .host.say import say
from .sampling import audio_part
from .sockets import CATEGORY, FaceSocket, SpeakerSocket, SpeechSocket, length_outputs, speech_input

TOGETHER, IN_TURNS = "together", "in turns"


class SpeechStrength(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3SpeechStrength",
            display_name="Speech Strength",
            search_aliases=["mouth strength", "lip strength", "audio scale"],
            category=f"{CATEGORY}/speech",
            description="The speech with another strength over time: how strongly it moves the "
            "face. 0: as in silence. 1: as the model has learned. Above 1: more than "
            "that.",
            inputs=[
                speech_input(),
                io.MultiType.Input(
                    "strength",
                    [io.Curve, io.Float],
                    tooltip="A curve over the whole speech, from Curve Editor, or a list with a "
                    "number for each frame.",
                ),
                io.Float.Input(
                    "factor",
                    default=1.0,
                    min=0.0,
                    max=MOST_STRENGTH,
                    step=0.05,
                    tooltip="The strength where the curve is 1.",
                ),
            ],
            outputs=[
                SpeechSocket.Output(
                    "speech_out", display_name="speech", tooltip="The speech with this strength."
                )
            ],
        )

    @classmethod
    def execute(cls, speech, strength, factor: float) -> io.NodeOutput:
        if isinstance(speech, CoreDialogue):
            raise InputError(
                "Speech Strength takes one speech, not a dialogue: put it between Encode Speech "
                "and Speaker."
            )
        wanted = factor * strengths(strength, speech)
        driven = speech.driven(wanted)
        say(f"strength {wanted.min():.2f} to {wanted.max():.2f}")
        return io.NodeOutput(driven)


def strengths(strength, speech: Speech) -> torch.Tensor:
    """The strength of each frame, (frames,), from a curve, a number or a list of numbers."""
    if isinstance(strength, CurveInput):
        times = torch.linspace(0, 1, speech.frames, dtype=torch.float64)
        return torch.from_numpy(strength.interp_array(times.numpy())).float()
    if isinstance(strength, int | float):
        return torch.full((speech.frames,), float(strength))
    return torch.tensor([float(number) for number in strength])


class Speaker(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3Speaker",
            display_name="Speaker",
            search_aliases=["multiple people"],
            category=f"{CATEGORY}/speech",
            description="One of several people in a picture: what this person says, and where "
            "this person is. Connect it to Dialogue.",
            inputs=[
                SpeechSocket.Input("speech", tooltip="What this person says, from Encode Speech."),
                io.Mask.Input(
                    "mask",
                    tooltip="Where this person is in your picture: from Find Face, from "
                    "MediaPipe's face nodes, or painted. Masks of two people should not overlap.",
                ),
                FaceSocket.Input(
                    "face",
                    optional=True,
                    tooltip="This person's face, from Find Face. It helps to keep the likeness.",
                ),
            ],
            outputs=[SpeakerSocket.Output(display_name="speaker", tooltip="For Dialogue.")],
        )

    @classmethod
    def execute(cls, speech, mask, face=None) -> io.NodeOutput:
        if isinstance(speech, CoreDialogue):
            raise InputError("A Speaker takes one speech, not a dialogue: connect Encode Speech.")
        region = one_mask(mask, size_of(mask))
        share = 1 if region is None else region.mean()
        say(f"{speech.frames / FPS:.2f} s of speech, in {100 * share:.0f} % of the picture")
        return io.NodeOutput(CoreSpeaker(speech, region, face.embedding if face else None))


class Dialogue(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3Dialogue",
            display_name="Dialogue",
            search_aliases=[
                "conversation",
                "multiple people",
                "two people",
                "talking heads",
                "podcast",
            ],
            category=f"{CATEGORY}/speech",
            description="A conversation of several people in one picture. Everybody else keeps "
            "silent. Connect a Speaker for each turn, or one for each person.",
            inputs=[
                io.Autogrow.Input(
                    "speakers",
                    template=io.Autogrow.TemplatePrefix(
                        SpeakerSocket.Input(
                            "speaker", tooltip="One turn of the dialogue, from Speaker."
                        ),
                        prefix="speaker_",
                        min=1,
                        max=50,
                    ),
                    tooltip="The turns of the dialogue, in this order.",
                ),
                io.Combo.Input(
                    "order",
                    options=[IN_TURNS, TOGETHER],
                    default=IN_TURNS,
                    tooltip="in turns: each begins when the one before has ended. together: all "
                    "begin at the same time.",
                ),
            ],
            outputs=[
                SpeechSocket.Output(
                    display_name="speech", tooltip="The whole dialogue, for Animate Portrait."
                ),
                io.Audio.Output(display_name="audio", tooltip="All speeches mixed."),
                *length_outputs(),
            ],
        )

    @classmethod
    def execute(cls, speakers, order: str) -> io.NodeOutput:
        connected = tuple(speaker for speaker in speakers.values() if speaker is not None)
        speech = in_turns(connected) if order == IN_TURNS else CoreDialogue(connected)
        assert speech.sound is not None  # Encode Speech always sets it
        say(f"{len(connected)} speakers, {speech.sound.seconds:.2f} s")
        audio = audio_part(speech.sound, 0, speech.frames)
        return io.NodeOutput(speech, audio, speech.frames, speech.segments)
