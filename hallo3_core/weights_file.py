"""Tensors too large for memory, piece by piece: read, and written as safetensors."""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import InputError

DTYPE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.uint8: "U8",
}
"""What safetensors calls the dtypes that we write."""


SLICE = 16 * 2**20


def slices(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor's numbers in order, some millions at a time."""
    yield from tensor.contiguous().view(-1).split(SLICE)


class Entry(NamedTuple):
    """A tensor that a file is going to have."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class WeightsWriter:
    """Writes a safetensors file whose `entries` arrive in order, each in any number of pieces.

    Until it is whole the file has another name; it never appears if the context is left by an
    error. Raises `InputError` when there is no room.
    """

    def __init__(self, path: Path, entries: Iterable[Entry], metadata: dict[str, str]):
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.expected = 0
        header: dict[str, object] = {"__metadata__": metadata}
        for entry in entries:
            start, self.expected = self.expected, self.expected + entry.bytes
            header[entry.name] = {
                "dtype": DTYPE_NAMES[entry.dtype],
                "shape": list(entry.shape),
                "data_offsets": [start, self.expected],
            }
        text = json.dumps(header).encode()
        self.header = text + b" " * (-len(text) % 8)

    def __enter__(self) -> "WeightsWriter":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.partial.open("wb")
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._put(len(self.header).to_bytes(8, "little") + self.header)
        return self

    def write(self, piece: Tensor) -> None:
        """The next numbers, in the dtype of the entry that they belong to."""
        self._put(piece.contiguous().view(-1).view(torch.uint8).numpy().data)

    def _put(self, data) -> None:
        try:
            self.file.write(data)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def __exit__(self, kind, *error) -> None:
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
                written = self.file.tell() - 8 - len(self.header)
                assert written == self.expected, f"{written} of {self.expected} bytes written"
            self.file.close()
            if kind is None:
                self.partial.replace(self.path)
        except OSError as failure:
            raise _cannot_write(self.path, failure) from failure
        finally:
            self.partial.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> InputError:
    if error.errno == errno.ENOSPC:
        return InputError(f"There is no room left for {path}: make room and start again.")
    return InputError(f"{path} cannot be written ({error.strerror}): choose another folder.")


def read_metadata(path: Path) -> dict[str, str]:
    """The text in the header of a safetensors file; empty if it is none, or has none."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}
