"""Load Hallo3 DiT, VAE and Speech Encoder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import folder_paths
from comfy_api.latest import io
from transformers import Wav2Vec2Model

from ..hallo3_core import builtin
from ..hallo3_core.model.loading import load_vae
from ..hallo3_core.speech.wav2vec2 import load_speech_encoder
from .host.loading import DTYPES, TWO_PEOPLE, UNDISTILLED, load_dit
from .host.memory import fit_in_words, weights_in_words
from .host.say import say
from .host.speech import SpeechEncoder
from .host.vae import Hallo3VAE
from .sockets import CATEGORY, ReferenceNetwork
from .sockets import SpeechEncoder as SpeechEncoderSocket

BUILT_IN = "built-in tiny model"
OTHERS = {
    "built-in tiny model, 50 steps": UNDISTILLED,
    "built-in tiny model, two people": TWO_PEOPLE,
}
"""The other files of the built-in model, by name."""


def file_input(name: str, files: list[str], tooltip: str) -> io.Combo.Input:
    return io.Combo.Input(name, options=[BUILT_IN, *files], tooltip=tooltip)


def model_file(folder: str, name: str) -> Path | None:
    """The file that was chosen, or None for the built-in model."""
    if name == BUILT_IN:
        return None
    return Path(folder_paths.get_full_path_or_raise(folder, name))


def gguf_files() -> list[str]:
    """The GGUF files in models/diffusion_models, which ComfyUI itself does not list."""
    return [
        str(file.relative_to(root))
        for root in folder_paths.get_folder_paths("diffusion_models")
        for file in sorted(Path(root).rglob("*.gguf"))
    ]


class LoadDiT(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3LoadDiT",
            display_name="Load Hallo3 DiT",
            search_aliases=["load model", "checkpoint", "diffusion model", "unet"],
            category=f"{CATEGORY}/loaders",
            description="The denoiser as a MODEL, from a file, and the reference network that "
            "belongs to it.",
            inputs=[
                file_input(
                    "model_name",
                    [*OTHERS, *folder_paths.get_filename_list("diffusion_models"), *gguf_files()],
                    "A Hallo3 file in models/diffusion_models. The built-in model needs no file, "
                    "but knows only drawn faces: use 4 steps, guidance 1 and the sampler few. For "
                    "a Dialogue, choose the one for two people.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    tooltip="The number format of the weights in memory. fp8 takes half the "
                    "memory of bf16 and is less exact. Quantised files keep their own format.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The denoiser."),
                ReferenceNetwork.Output(
                    display_name="reference_network",
                    tooltip="The reference network, for Encode Identity.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str) -> io.NodeOutput:
        file = OTHERS.get(model_name) or model_file("diffusion_models", model_name)
        model, companions = load_dit(file, DTYPES[weight_dtype])
        say(fit_in_words(model))
        return io.NodeOutput(model, companions.reference_network)


class LoadVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3LoadVAE",
            display_name="Load Hallo3 VAE",
            search_aliases=["vae", "cogvideox"],
            category=f"{CATEGORY}/loaders",
            description="The CogVideoX VAE, from a file. It decodes a few frames at a time, as the "
            "published program does.",
            inputs=[
                file_input(
                    "vae_name",
                    folder_paths.get_filename_list("vae"),
                    "A CogVideoX VAE in models/vae: the published 3d-vae.pt, or a safetensors file "
                    "with diffusers' names.",
                )
            ],
            outputs=[
                io.Vae.Output(
                    display_name="vae",
                    tooltip="The VAE. It also works with ComfyUI's own VAE nodes.",
                )
            ],
        )

    @classmethod
    def execute(cls, vae_name: str) -> io.NodeOutput:
        vae = open_vae(model_file("vae", vae_name))
        kind = "built-in VAE" if vae_name == BUILT_IN else "CogVideoX VAE"
        say(f"{kind}: {weights_in_words(vae.patcher)}")
        return io.NodeOutput(vae)


def open_vae(file: Path | None) -> Hallo3VAE:
    """The VAE of a file, or the built-in one. ComfyUI can load it again for another card."""
    vae = Hallo3VAE(load_vae(file) if file else builtin.load().vae)
    vae.patcher.cached_patcher_init = (vae_patcher, (file,))
    return vae


def vae_patcher(file: Path | None, disable_dynamic: bool = False):
    """The patcher of a new `Hallo3VAE`; it is never a dynamic one."""
    return open_vae(file).patcher


class LoadSpeechEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hallo3LoadSpeechEncoder",
            display_name="Load Hallo3 Speech Encoder",
            search_aliases=["audio encoder", "wav2vec2"],
            category=f"{CATEGORY}/loaders",
            description="wav2vec2, from a file: the network that turns speech into features.",
            inputs=[
                file_input(
                    "encoder_name",
                    speech_encoders(),
                    "wav2vec2-base-960h in models/audio_encoders, as one file or as a folder.",
                )
            ],
            outputs=[
                SpeechEncoderSocket.Output(
                    display_name="speech_encoder", tooltip="wav2vec2, for Encode Speech."
                )
            ],
        )

    @classmethod
    def execute(cls, encoder_name: str) -> io.NodeOutput:
        encoder = SpeechEncoder(encoder_loader(encoder_name))
        config = encoder.patcher.model.wav2vec2.config
        kind = "built-in wav2vec2" if encoder_name == BUILT_IN else "wav2vec2"
        layers = f"{config.num_hidden_layers} layers of width {config.hidden_size}"
        say(f"{kind}: {layers}, {weights_in_words(encoder.patcher)}")
        return io.NodeOutput(encoder)


def encoder_loader(name: str) -> Callable[[], Wav2Vec2Model]:
    """What loads the speech encoder that was chosen."""
    if name == BUILT_IN:
        return lambda: builtin.load().speech_encoder
    for folder in folder_paths.get_folder_paths("audio_encoders"):
        path = Path(folder) / name
        if path.is_dir():
            return partial(load_speech_encoder, path)
    file = Path(folder_paths.get_full_path_or_raise("audio_encoders", name))
    return partial(load_speech_encoder, file)


def speech_encoders() -> list[str]:
    """Files in models/audio_encoders, and folders with a configuration."""
    folders = [
        path.parent.name
        for root in folder_paths.get_folder_paths("audio_encoders")
        for path in Path(root).glob("*/config.json")
    ]
    return folders + folder_paths.get_filename_list("audio_encoders")
