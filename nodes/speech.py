"""Encode Speech and Encode Prompt."""

from dataclasses import replace

import comfy.sd
from comfy_api.latest import io

from ..hallo3_core import builtin
from ..hallo3_core.sound.audio import sound_of_audio
from .host.say import say
from .sockets import CATEGORY, SpeechEncoder, SpeechSocket


class EncodeSpeech(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3EncodeSpeech",
            display_name="Encode Speech",
            category=CATEGORY,
            description="Turns speech into features that move the mouth. It takes any sample "
            "rate and any number of channels.",
            inputs=[
                io.Audio.Input(
                    "audio", tooltip="The speech, with as little other sound as possible."
                ),
                SpeechEncoder.Input(
                    "speech_encoder", tooltip="wav2vec2, from Load Hallo3 Speech Encoder."
                ),
            ],
            outputs=[
                SpeechSocket.Output(display_name="speech", tooltip="The features of the speech."),
                io.Float.Output(
                    display_name="duration", tooltip="The length of the speech in seconds."
                ),
                io.Int.Output(
                    display_name="frames",
                    tooltip="How many frames the video has, at 25 frames a second.",
                ),
                io.Int.Output(
                    display_name="segments",
                    tooltip="How many segments the video has. A segment has 47 frames.",
                ),
            ],
        )

    @classmethod
    def execute(cls, audio, speech_encoder) -> io.NodeOutput:
        sound = sound_of_audio(audio, "The speech")
        speech = replace(
            speech_encoder.encode(sound.prepared()),
            sound=sound,
            encoder=speech_encoder.fingerprint(),
        )
        segments = "1 segment" if speech.segments == 1 else f"{speech.segments} segments"
        say(f"{sound.seconds:.2f} s: {speech.frames} frames in {segments}")
        return io.NodeOutput(speech, sound.seconds, speech.frames, speech.segments)


class EncodePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3EncodePrompt",
            display_name="Encode Prompt",
            category=CATEGORY,
            description="Encodes a prompt. It does what CLIP Text Encode does, and also works "
            "with the built-in model.",
            inputs=[
                io.String.Input("text", multiline=True, tooltip="What the video shows, in words."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="T5 XXL, from CLIPLoader, type cogvideox. Leave it open for the "
                    "built-in model, which has its own text encoder.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="The encoded prompt.")
            ],
        )

    @classmethod
    def execute(cls, text: str, clip: comfy.sd.CLIP | None = None) -> io.NodeOutput:
        if clip is None:
            return io.NodeOutput([[builtin.text_encoder()(text), {}]])
        return io.NodeOutput(clip.encode_from_tokens_scheduled(clip.tokenize(text)))
