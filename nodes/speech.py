"""Encode Speech and Encode Prompt."""

import logging

import comfy.sd
from comfy_api.latest import io

from ..hallo3_core import builtin
from ..hallo3_core.errors import InputError
from ..hallo3_core.speech import prepare_waveform
from .sockets import CATEGORY, HeardSpeech, SpeechEncoder, SpeechSocket

logger = logging.getLogger(__name__)


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
        waveform, rate = audio["waveform"][0], audio["sample_rate"]
        if len(audio["waveform"]) > 1:
            logger.warning(
                "The audio is a batch of %d sounds: the first is taken.", len(audio["waveform"])
            )
        if not waveform.numel():
            raise InputError("The audio has no length: connect speech.")
        if not waveform.isfinite().all():
            raise InputError("The audio has samples that are no numbers: export it again.")
        speech = speech_encoder.encode(prepare_waveform(waveform, rate))
        heard = HeardSpeech(speech.features, speech.frames, waveform, rate)
        duration = waveform.shape[-1] / rate
        return io.NodeOutput(heard, duration, heard.frames, heard.segments)


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
