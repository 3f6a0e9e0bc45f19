"""Encode Speech, Encode Prompt and Prompts Over Time."""

from dataclasses import replace

import comfy.sd
from comfy_api.latest import io

from ..hallo3_core import builtin
from ..hallo3_core.network.config import Hallo3Config
from ..hallo3_core.prompts import EXAMPLE, read_prompts
from ..hallo3_core.sound.audio import sound_of_audio
from ..hallo3_core.sound.levels import LONGEST_SILENCE, normalized, with_silence
from ..hallo3_core.speech.activity import method, speech_spans
from ..hallo3_core.speech.activity import only_speech as without_the_rest
from ..hallo3_core.text import check_length
from .host.say import say
from .host.time_left import expected
from .sampling import BEGINS
from .sockets import CATEGORY, SpeechEncoder, SpeechSocket, length_outputs

MOST_TOKENS = Hallo3Config.text_tokens
T5, PADDING = "t5xxl", 0
"""What ComfyUI calls T5 XXL, and the number of its token that fills a prompt up."""


class EncodeSpeech(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3EncodeSpeech",
            display_name="Encode Speech",
            search_aliases=["audio encoder", "wav2vec2", "voice"],
            category=f"{CATEGORY}/speech",
            description="The features of a speech, which move the mouth. It takes any sample rate "
            "and any number of channels.",
            inputs=[
                io.Audio.Input(
                    "audio", tooltip="The speech, with as little other sound as possible."
                ),
                SpeechEncoder.Input(
                    "speech_encoder", tooltip="wav2vec2, from Load Hallo3 Speech Encoder."
                ),
                io.Boolean.Input(
                    "only_speech",
                    default=False,
                    optional=True,
                    tooltip="Keep the mouth shut where nobody speaks, also if there is noise or "
                    "quiet music. The sound of the video does not change.",
                ),
                io.Boolean.Input(
                    "normalize",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Bring the sound to a loudness of -23 LUFS.",
                ),
                silence_input("silence_before", "before the speech"),
                silence_input("silence_after", "after the speech, so that the mouth can close"),
            ],
            outputs=[
                SpeechSocket.Output(display_name="speech", tooltip="The features of the speech."),
                io.Float.Output(
                    display_name="duration", tooltip="The length of the speech in seconds."
                ),
                *length_outputs(),
            ],
        )

    @classmethod
    def execute(
        cls,
        audio,
        speech_encoder,
        only_speech: bool = False,
        normalize: bool = False,
        silence_before: float = 0.0,
        silence_after: float = 0.0,
    ) -> io.NodeOutput:
        sound = with_silence(sound_of_audio(audio, "The speech"), silence_before, silence_after)
        sound = normalized(sound) if normalize else sound
        waveform, made_by, found = sound.prepared(), speech_encoder.fingerprint(), []
        if only_speech:
            spans = speech_spans(waveform)
            waveform, made_by = without_the_rest(waveform, spans), made_by + method()
            spoken = sum(last - first for first, last in spans)
            found = [f"speech in {spoken:.2f} s of it"]
        speech = replace(speech_encoder.encode(waveform), sound=sound, encoder=made_by)
        segments = "1 segment" if speech.segments == 1 else f"{speech.segments} segments"
        length = f"{sound.seconds:.2f} s: {speech.frames} frames in {segments}"
        say(", ".join((length, *expected(speech.segments))), *found)
        return io.NodeOutput(speech, sound.seconds, speech.frames, speech.segments)


def silence_input(name: str, where: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=0.0,
        min=0.0,
        max=LONGEST_SILENCE,
        step=0.1,
        optional=True,
        advanced=True,
        tooltip=f"Seconds of silence {where}.",
    )


class EncodePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3EncodePrompt",
            display_name="Encode Prompt",
            search_aliases=["clip text encode", "text encoder", "prompt"],
            category=f"{CATEGORY}/prompt",
            description="An encoded prompt. It does what CLIP Text Encode does, and also works "
            "with the built-in model.",
            inputs=[
                io.String.Input("text", multiline=True, tooltip="What the video shows, in words."),
                clip_input(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="The encoded prompt.")
            ],
        )

    @classmethod
    def execute(cls, text: str, clip: comfy.sd.CLIP | None = None) -> io.NodeOutput:
        conditioning, tokens = encoded(text, clip)
        if tokens is not None:
            say(f"{tokens} of at most {MOST_TOKENS} tokens")
        return io.NodeOutput(conditioning)


class PromptsOverTime(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3PromptsOverTime",
            display_name="Prompts Over Time",
            search_aliases=["prompt schedule", "prompt travel", "timed prompts"],
            category=f"{CATEGORY}/prompt",
            description="Prompts that change during the video. A prompt begins at its second and "
            "ends where the next one begins. A segment of 1.88 s has one prompt.",
            inputs=[
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default=f"0 a person talks\n{EXAMPLE}",
                    tooltip="A line for each prompt: the second where it begins, and its words.",
                ),
                clip_input(),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="For Animate Portrait or Sample Segment."
                )
            ],
        )

    @classmethod
    def execute(cls, prompts: str, clip: comfy.sd.CLIP | None = None) -> io.NodeOutput:
        timed = [
            [tensor, options | {BEGINS: second}]
            for second, text in read_prompts(prompts)
            for tensor, options in encoded(text, clip)[0]
        ]
        say("1 prompt" if len(timed) == 1 else f"{len(timed)} prompts")
        return io.NodeOutput(timed)


def clip_input() -> io.Clip.Input:
    return io.Clip.Input(
        "clip",
        optional=True,
        tooltip="T5 XXL, from CLIPLoader, type cogvideox. Connect nothing for the built-in "
        "model, which has its own text encoder.",
    )


def encoded(text: str, clip: comfy.sd.CLIP | None) -> tuple[list, int | None]:
    """The CONDITIONING of a text, and its number of tokens. Warns if words are cut off.

    The built-in text encoder encodes it if there is no `clip`. The number is None if `clip` is not
    T5 XXL.
    """
    if clip is None:
        encoder = builtin.text_encoder()
        return [[encoder(text), {}]], encoder.count(text)
    tokens = clip.tokenize(text)
    length = count_tokens(tokens[T5]) if T5 in tokens else None
    check_length(length or 0, MOST_TOKENS)
    return clip.encode_from_tokens_scheduled(tokens), length


def count_tokens(batches: list[list[tuple]]) -> int:
    """How many tokens ComfyUI's T5 has found, without the padding. Embeddings are no numbers."""
    tokens = [token for batch in batches for token, *_ in batch]
    return sum(not isinstance(token, int) or token != PADDING for token in tokens)
