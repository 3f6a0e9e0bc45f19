"""Isolate Vocals."""

import folder_paths
import torch
from comfy_api.latest import io

from ..hallo3_core.sound.audio import read_audio
from .host.onnx import AUDIO_SEPARATION, vocal_isolator
from .host.say import say
from .sockets import CATEGORY

NO_MODEL = "none: pass the sound on"


class IsolateVocals(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folder_paths.get_filename_list(AUDIO_SEPARATION)
        return io.Schema(
            node_id="Hallo3IsolateVocals",
            display_name="Isolate Vocals",
            search_aliases=["vocal separation", "separate voice", "remove music", "stems", "song"],
            category=f"{CATEGORY}/speech",
            description="The voice without the music, so that the lips do not move to the drums.",
            inputs=[
                io.Audio.Input("audio", tooltip="Speech or song with other sound around it."),
                io.Combo.Input(
                    "model_name",
                    options=[*files, NO_MODEL],
                    tooltip="An MDX-Net file in models/audio_separation. The published program "
                    "uses Kim_Vocal_2.onnx. If you choose none, the sound is not changed.",
                ),
            ],
            outputs=[
                io.Audio.Output(display_name="vocals", tooltip="The voice, for Encode Speech."),
                io.Audio.Output(display_name="rest", tooltip="Everything except the voice."),
            ],
        )

    @classmethod
    def execute(cls, audio, model_name: str) -> io.NodeOutput:
        waveform, rate = read_audio(audio, "The audio")
        vocals = waveform
        if model_name != NO_MODEL:
            isolate = vocal_isolator(model_name)
            vocals = torch.stack([isolate(sound, rate) for sound in waveform])
        say(f"the voice, by {model_name}" if model_name != NO_MODEL else "the sound as it is")
        return io.NodeOutput(
            {"waveform": vocals, "sample_rate": rate},
            {"waveform": waveform - vocals, "sample_rate": rate},
        )
