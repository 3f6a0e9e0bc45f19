"""Weights files of safetensors and PyTorch, memory-mapped."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError, some
from .file_kind import SAFETENSORS, ZIP, read_kind


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or PyTorch file, memory-mapped.

    Raises `InputError` for a file that is missing, cut short or no weights file at all.
    """
    kind = read_kind(path, "weights", SAFETENSORS, ZIP)
    if part := re.search(r"-0*(\d+)-of-0*(\d+)\.", path.name):
        raise InputError(
            f"{path} is part {part[1]} of {part[2]} of a network: choose a file that has it whole."
        )
    whole = is_zipfile(path)
    try:
        if kind is SAFETENSORS:
            return load_file(path)
        if whole:
            _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except InputError:
        raise
    except Exception as error:  # on garbage the unpickler may raise anything
        if isinstance(error, UnpicklingError) and whole:
            raise InputError(
                f"{path} holds other things than weights, which are not loaded because they "
                "could run programs: get it from the authors, or as safetensors."
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
    """Find every member of a PyTorch file in its place, and its index whole; torch does not."""
    with ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.endswith("data.pkl") for name in names):
            raise InputError(
                f"{path} is a ZIP archive ({some(names)}), not weights: unpack it and choose the "
                "file that was in it."
            )
        for name in names:
            with archive.open(name) as member:
                if name.endswith("data.pkl"):
                    member.read()


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}
