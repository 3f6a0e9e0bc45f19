"""Reads GGUF files, the format of llama.cpp, with its own package (requirements-gguf.txt)."""

from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError


def read_gguf(path: Path) -> dict[str, Tensor]:
    """The tensors of a GGUF file by name, on the CPU.

    float32 and float16 tensors stay in the file, memory-mapped. All others become bfloat16. Raises
    `InputError` if the file is damaged or cut short, or if the package is missing.
    """
    try:
        from gguf import GGMLQuantizationType, GGUFReader, dequantize
    except ImportError as error:
        raise InputError(
            f"{path} is a GGUF file, which only the package gguf can read: run `pip install gguf`, "
            "or use a .safetensors file."
        ) from error
    floats = GGMLQuantizationType.F32, GGMLQuantizationType.F16
    try:
        tensors = GGUFReader(path, mode="c").tensors  # so that numpy lets torch use them
        if not tensors:
            raise ValueError("no tensors")
        return {
            tensor.name: torch.from_numpy(tensor.data)
            if tensor.tensor_type in floats
            else torch.from_numpy(dequantize(tensor.data, tensor.tensor_type)).bfloat16()
            for tensor in tensors
        }
    except Exception as error:  # damaged data can make numpy raise any error
        raise InputError(
            f"{path} is a GGUF file that is damaged, cut short or of an unknown kind: download it "
            f"again. ({type(error).__name__})"
        ) from error
