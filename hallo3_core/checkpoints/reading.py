"""Read weights files of safetensors and PyTorch, memory-mapped, and of GGUF."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError, some
from ..quantization.stored import joined
from .file_kind import GGUF, SAFETENSORS, ZIP, read_kind
from .gguf_file import read_gguf
from .weights_file import read_metadata


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, PyTorch or GGUF file by name, on the CPU.

    They are memory-mapped, except for those that `read_gguf` has to convert.

    Raises `InputError` if the file is missing, damaged, cut short, one part of several files, or
    not a weights file.
    """
    kind = read_kind(path, "weights", SAFETENSORS, ZIP, GGUF)
    if part := re.search(r"-0*(\d+)-of-0*(\d+)\.", path.name):
        raise InputError(
            f"{path} is part {part[1]} of {part[2]} of a network: choose one file with all weights."
        )
    if kind is GGUF:
        return read_gguf(path)
    whole = is_zipfile(path)
    try:
        if kind is SAFETENSORS:
            return load_file(path)
        if whole:
            _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except InputError:
        raise
    except Exception as error:  # damaged data can make the unpickler raise any error
        if isinstance(error, UnpicklingError) and whole:
            raise InputError(
                f"{path} contains more than weights, and loading it could run programs: get the "
                "file from its authors, or choose a .safetensors file."
            ) from error
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as weights; it is damaged or "
            f"cut short: download it again. ({type(error).__name__})"
        ) from error
    for wrapper in ("module", "state_dict"):
        if isinstance(content, dict) and wrapper in content:
            content = content[wrapper]
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not named weights: choose another file."
        )
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _check_archive(path: Path) -> None:
    """Check that the members of a PyTorch file are in place and its index is intact.

    torch does not check this. Raises `InputError` for another ZIP archive.
    """
    with ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.endswith("data.pkl") for name in names):
            raise InputError(
                f"{path} is a ZIP archive ({some(names)}), not weights: unpack it and choose the "
                "file in it."
            )
        for name in names:
            with archive.open(name) as member:
                if name.endswith("data.pkl"):
                    member.read()


def read_networks(path: Path) -> dict[str, Tensor]:
    """The weights of Hallo3's networks, with each quantised matrix as one tensor (`joined`).

    Raises `InputError` as `read_weights` and `joined` do.
    """
    return joined(read_weights(path), read_metadata(path), path)


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by name."""
    return {name: tuple(value.shape) for name, value in weights.items()}
