"""Load Hallo3 DiT, VAE and Speech Encoder."""

from functools import partial
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..hallo3_core import builtin
from ..hallo3_core.model.loading import load_vae
from ..hallo3_core.speech.wav2vec2 import load_speech_encoder
from .host.loading import DTYPES, load_dit
from .host.speech import SpeechEncoder
from .host.vae import Hallo3VAE
from .sockets import CATEGORY, ReferenceNetwork
from .sockets import SpeechEncoder as SpeechEncoderSocket

BUILT_IN = "built-in tiny model"


def model_file(folder: str, name: str) -> Path | None:
    """The file behind a choice of a drop-down; None for the built-in model."""
    if name == BUILT_IN:
        return None
    return Path(folder_paths.get_full_path_or_raise(folder, name))


class LoadDiT(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3LoadDiT",
            display_name="Load Hallo3 DiT",
            category=CATEGORY,
            description="Loads the denoiser as a MODEL, and the reference network beside it.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[BUILT_IN, *folder_paths.get_filename_list("diffusion_models")],
                    tooltip="A Hallo3 file in models/diffusion_models. The built-in model is "
                    "small and knows only drawn faces.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    tooltip="How weights are kept. fp8 takes half the memory of bf16 and is "
                    "less exact.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The denoiser."),
                ReferenceNetwork.Output(
                    display_name="reference_network", tooltip="For Encode Identity."
                ),
            ],
        )

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str) -> io.NodeOutput:
        file = model_file("diffusion_models", model_name)
        model, companions = load_dit(file, DTYPES[weight_dtype])
        return io.NodeOutput(model, companions.reference_network)


class LoadVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3LoadVAE",
            display_name="Load Hallo3 VAE",
            category=CATEGORY,
            description="Loads the CogVideoX VAE and decodes as published, in time chunks.",
            inputs=[
                io.Combo.Input(
                    "vae_name",
                    options=[BUILT_IN, *folder_paths.get_filename_list("vae")],
                    tooltip="The published 3d-vae.pt or the same in diffusers' names, in "
                    "models/vae.",
                )
            ],
            outputs=[
                io.Vae.Output(display_name="vae", tooltip="Also for ComfyUI's own VAE nodes.")
            ],
        )

    @classmethod
    def execute(cls, vae_name: str) -> io.NodeOutput:
        return io.NodeOutput(open_vae(model_file("vae", vae_name)))


def open_vae(file: Path | None) -> Hallo3VAE:
    """The VAE of a file or the built-in one, which ComfyUI can have anew for another card."""
    vae = Hallo3VAE(load_vae(file) if file else builtin.load().vae)
    vae.patcher.cached_patcher_init = (vae_patcher, (file,))
    return vae


def vae_patcher(file: Path | None, disable_dynamic: bool = False):
    """That of a new `Hallo3VAE`, which is never a dynamic one."""
    return open_vae(file).patcher


class LoadSpeechEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3LoadSpeechEncoder",
            display_name="Load Hallo3 Speech Encoder",
            category=CATEGORY,
            description="Loads wav2vec2, which turns speech into features.",
            inputs=[
                io.Combo.Input(
                    "encoder_name",
                    options=[BUILT_IN, *speech_encoders()],
                    tooltip="wav2vec2-base-960h in models/audio_encoders, as one file or as a "
                    "folder.",
                )
            ],
            outputs=[
                SpeechEncoderSocket.Output(
                    display_name="speech_encoder", tooltip="For Encode Speech."
                )
            ],
        )

    @classmethod
    def execute(cls, encoder_name: str) -> io.NodeOutput:
        if encoder_name == BUILT_IN:
            return io.NodeOutput(SpeechEncoder(lambda: builtin.load().speech_encoder))
        for folder in folder_paths.get_folder_paths("audio_encoders"):
            path = Path(folder) / encoder_name
            if path.is_dir():
                return io.NodeOutput(SpeechEncoder(partial(load_speech_encoder, path)))
        file = model_file("audio_encoders", encoder_name)
        return io.NodeOutput(SpeechEncoder(partial(load_speech_encoder, file)))


def speech_encoders() -> list[str]:
    """Files in models/audio_encoders, and folders with a configuration."""
    folders = [
        path.parent.name
        for root in folder_paths.get_folder_paths("audio_encoders")
        for path in Path(root).glob("*/config.json")
    ]
    return folders + folder_paths.get_filename_list("audio_encoders")
