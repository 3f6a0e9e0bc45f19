"""Networks in folders as transformers saves them."""

import json
from pathlib import Path

from ..errors import InputError, some
from .file_kind import SAFETENSORS, ZIP, read_kind


def load_pretrained(network: type, folder: Path, name: str):
    """A network of transformers from a folder as it saves them, whole or not at all.

    `name` is what it is called where it is published. Raises `InputError` where transformers would
    go on with random weights, or with those of another kind of network.
    """
    read_config(folder, network.config_class.model_type, name)
    try:
        module, info = network.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises many kinds
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
    """The configuration in a folder as transformers saves it, of a network of a kind.

    `name` is what it is called where it is published. Raises `InputError` for that of another one.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"There is no config.json in {folder}: download all of {name} into it.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        found = config.get("model_type") or config.get("_class_name") or "nothing known"
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{file} cannot be read ({type(error).__name__}): download it again."
        ) from error
    if found != kind:
        raise InputError(f"{folder} is a folder of {found}, not {kind}: choose that of {name}.")
    return config
