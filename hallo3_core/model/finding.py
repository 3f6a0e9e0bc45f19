"""Where the files of a model lie."""

from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

TRANSFORMER_FILE = "hallo3/1/mp_rank_00_model_states.pt"
VAE_FILE = "cogvideox-5b-i2v-sat/vae/3d-vae.pt"
SPEECH_FOLDER = "wav2vec/wav2vec2-base-960h"
TEXT_FOLDER = "t5-v1_1-xxl"
COMFYUI_DOWNLOADS = ("vae/hallo3/3d-vae.pt", "audio_encoders/wav2vec2-base-960h")
COMFYUI_FILES = (
    ("vae/hallo3_vae_*.safetensors", COMFYUI_DOWNLOADS[0]),
    ("audio_encoders/hallo3_wav2vec2.safetensors", COMFYUI_DOWNLOADS[1]),
    ("text_encoders/t5xxl_*.safetensors", "text_encoders/t5-v1_1-xxl"),
)
"""In ComfyUI's `models`: autoencoder, speech encoder and text encoder, the best place first."""


class Files(NamedTuple):
    """Where the networks of a model lie, and the folder around them."""

    transformers: Path
    vae: Path
    speech_encoder: Path
    text_encoder: Path
    root: Path


def find_files(path: Path) -> Files:
    """The files around a model's weights file, or in its folder.

    Laid out like the published download, or like ComfyUI's `models` as `convert` fills it.
    """
    if not path.exists():
        raise InputError(f"There is no model {path}: give the folder of the model.")
    if path.is_dir():
        converted = sorted((path / "diffusion_models").glob("hallo3_dit_*.safetensors"))
        if len(converted) > 1:
            names = ", ".join(file.name for file in converted)
            raise InputError(f"There are {names} in {path}: give the file itself.")
        published = [path / "diffusion_models" / TRANSFORMER_FILE, path / TRANSFORMER_FILE]
        found = [*converted, *filter(Path.is_file, published)]
        if not found:
            raise InputError(
                f"There is no Hallo3 in {path}: give the folder that has {TRANSFORMER_FILE} or "
                "diffusion_models/hallo3_dit_*.safetensors in it."
            )
        path = found[0]
    file = path.resolve()
    for folder in file.parents:
        if folder.name == "diffusion_models":
            root = folder.parent
            return Files(file, *(_first(root, places) for places in COMFYUI_FILES), root)
    folder = file.parent.parent.parent
    text = _first(folder, ("t5xxl_*.safetensors", TEXT_FOLDER))
    return Files(file, folder / VAE_FILE, folder / SPEECH_FOLDER, text, folder)


def _first(folder: Path, patterns: tuple[str, ...]) -> Path:
    """The first file of some patterns, or the place where it is missing."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return next(found, folder / patterns[-1])
