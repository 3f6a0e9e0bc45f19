"""Find the files of a model."""

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

PACK = Path(__file__).parents[2]
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
"""Places in ComfyUI's `models` of autoencoder, speech encoder and text encoder, best first."""


class Files(NamedTuple):
    """The paths of a model's networks, and the folder `root` that contains them."""

    transformers: Path
    vae: Path
    speech_encoder: Path
    text_encoder: Path
    root: Path


def find_files(path: Path) -> Files:
    """Find the files of the model at `path`, which is its weights file or its folder.

    The folder has the layout of the published download, or of ComfyUI's `models` after `convert`.
    Only the transformers are sure to exist. Raises `InputError` if `path` does not exist, or if the
    folder has no model or several.
    """
    if not path.exists():
        raise InputError(f"There is no model {path}: give the folder of the model.")
    if path.is_dir():
        converted = sorted((path / "diffusion_models").glob("hallo3_dit_*.safetensors"))
        if len(converted) > 1:
            names = ", ".join(file.name for file in converted)
            raise InputError(f"There are several models in {path} ({names}): give one file.")
        published = [path / "diffusion_models" / TRANSFORMER_FILE, path / TRANSFORMER_FILE]
        found = [*converted, *filter(Path.is_file, published)]
        if not found:
            raise InputError(
                f"There is no Hallo3 model in {path}: give the folder that contains "
                f"{TRANSFORMER_FILE} or diffusion_models/hallo3_dit_*.safetensors."
            )
        path = found[0]
    file = path.resolve()
    for folder in file.parents:
        if folder.name == "diffusion_models":
            root = folder.parent
            vae, speech_encoder, text_encoder = (_first(root, places) for places in COMFYUI_FILES)
            return Files(file, vae, speech_encoder, text_encoder, root)
    folder = file.parent.parent.parent
    text = _first(folder, ("t5xxl_*.safetensors", TEXT_FOLDER))
    return Files(file, folder / VAE_FILE, folder / SPEECH_FOLDER, text, folder)


def _first(folder: Path, patterns: tuple[str, ...]) -> Path:
    """The first file that matches a pattern; if there is none, the path of the last pattern."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return next(found, folder / patterns[-1])


def comfyui_folder(name: str) -> Path:
    """The folder `name` (`models` or `input`) of the ComfyUI that has this pack in custom_nodes.

    The pack may also be there as a link. Raises `InputError` if the pack is elsewhere.
    """
    # Python resolves links; PWD keeps the link through which the shell came here
    shell = Path(os.environ.get("PWD", PACK))
    places = [PACK, shell] if shell.exists() and shell.samefile(PACK) else [PACK]
    for place in places:
        if place.parent.name == "custom_nodes":
            return place.parent.parent / name
    raise InputError(
        f"{PACK} is not in the custom_nodes of a ComfyUI: give the folder, such as ComfyUI/{name}."
    )
