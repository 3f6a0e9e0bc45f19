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
            description="Turns speech of any rate and number of channels into features.",
            inputs=[
                io.Audio.Input("audio", tooltip="Speech, with as little else as possible."),
                SpeechEncoder.Input(
                    "speech_encoder", tooltip="wav2vec2, from Load Hallo3 Speech Encoder."
                ),
            ],
            outputs=[
                SpeechSocket.Output(display_name="speech", tooltip="What is said."),
                io.Float.Output(display_name="duration", tooltip="Seconds of speech."),
                io.Int.Output(display_name="frames", tooltip="Frames of the video, 25 a second."),
                io.Int.Output(
                    display_name="segments", tooltip="Segments of the video, of 47 frames each."
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
            description="CLIP Text Encode that also knows the built-in tiny model's text encoder.",
            inputs=[
                io.String.Input("text", multiline=True, tooltip="What the video shows, in words."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="T5, from CLIPLoader of type cogvideox. Without it the text goes "
                    "through the built-in tiny text encoder, for the built-in model only.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The prompt.")],
        )

    @classmethod
    def execute(cls, text: str, clip: comfy.sd.CLIP | None = None) -> io.NodeOutput:
        if clip is None:
            return io.NodeOutput([[builtin.text_encoder()(text), {}]])
        return io.NodeOutput(clip.encode_from_tokens_scheduled(clip.tokenize(text)))
