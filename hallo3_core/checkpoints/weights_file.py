"""Read tensors in slices and write them as safetensors, because they can exceed the memory."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..media.outputs import cannot_write, new_folder, place, temporary

DTYPE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.int8: "I8",
    torch.uint8: "U8",
}
"""The names in safetensors of the dtypes that we write."""

SLICE = 16 * 2**20
"""Elements of a slice."""


def slices(tensor: Tensor) -> Iterator[Tensor]:
    """The elements of a tensor in order, in 1-D tensors of at most `SLICE` elements."""
    yield from tensor.contiguous().view(-1).split(SLICE)


class Entry(NamedTuple):
    """A tensor that will be written to a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@contextmanager
def weights_file(
    path: Path, entries: Iterable[Entry], metadata: dict[str, str], overwrite: bool = False
) -> Iterator[Callable[[Tensor], object]]:
    """Write a safetensors file with the tensors `entries`, in that order.

    Yields a function that writes the next elements, given in the dtype of their entry. A tensor can
    be written in any number of pieces. The file has a temporary name until it is complete. After an
    error, the file and any folder made for it are removed. Raises `InputError` if nothing can be
    written there, or if `path` exists and `overwrite` is False.
    """
    header, expected = _header(entries, metadata)
    with new_folder(path.parent), temporary(path) as partial:
        try:
            with partial.open("wb") as file:
                file.write(header)
                yield lambda piece: file.write(_bytes(piece))
                written = file.tell() - len(header)
                assert written == expected, f"{written} of {expected} bytes written"
                file.flush()
                os.fsync(file.fileno())
            place(partial, path, overwrite)
        except OSError as error:
            raise cannot_write(path, error) from error


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def _header(entries: Iterable[Entry], metadata: dict[str, str]) -> tuple[bytes, int]:
    """The header of a safetensors file, and the number of data bytes after it."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for entry in entries:
        start, end = end, end + entry.bytes
        header[entry.name] = {
            "dtype": DTYPE_NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty if it has none or cannot be read as safetensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}
