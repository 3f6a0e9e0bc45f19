"""Load networks from folders in the format of the transformers library."""

import json
from pathlib import Path

from transformers import PreTrainedModel

from ..errors import InputError, some
from .file_kind import SAFETENSORS, ZIP, read_kind


def load_pretrained(network: type[PreTrainedModel], folder: Path, name: str) -> PreTrainedModel:
    """Load a network from a folder in the format of transformers, in eval mode.

    `network` is its class, and `name` its published name for errors. Raises `InputError` if the
    folder is incomplete or damaged, or has another kind of network. In some of these cases
    transformers itself would continue with random weights.
    """
    read_config(folder, network.config_class.model_type, name)
    try:
        module, info = network.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises errors of many types
        for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
            read_kind(file, "weights", SAFETENSORS, ZIP)
        raise InputError(
            f"The files in {folder} cannot be loaded ({type(error).__name__}): download all of "
            f"{name} again."
        ) from error
    missing = [str(key) for key in (*info["missing_keys"], *info["mismatched_keys"])]
    if missing:
        raise InputError(
            f"The weights in {folder} lack {len(missing)} tensors ({some(missing)}): download all "
            f"of {name} again."
        )
    return module.eval().requires_grad_(False)


def read_config(folder: Path, kind: str, name: str) -> dict:
    """Read the `config.json` of a folder in the format of transformers.

    `kind` is the `model_type` that it must have, and `name` the published name of the network for
    errors. Raises `InputError` if the file is missing or damaged, or if it has another kind.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"There is no config.json in {folder}: download all of {name} into it.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        found = config.get("model_type") or config.get("_class_name") or "an unknown model"
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{file} cannot be read ({type(error).__name__}): download it again."
        ) from error
    if found != kind:
        raise InputError(
            f"{folder} is a folder of {found}, not {kind}: choose the folder of {name}."
        )
    return config
