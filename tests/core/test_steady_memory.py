"""Freed blocks of tens of megabytes return to the system during the work, in every thread."""

import ctypes
import sys

import pytest
import torch

from hallo3_core.allocator import MIB, steady_memory

libc = ctypes.CDLL(None) if sys.platform == "linux" else None

pytestmark = pytest.mark.skipif(not hasattr(libc, "mallinfo2"), reason="needs glibc 2.33 or later")

BLOCK = 24 * MIB
HOLES = 80


class Mallinfo(ctypes.Structure):
    """The fields of glibc's `struct mallinfo2`. `hblkhd` is the number of mapped bytes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", *"abcde")
    )


def goes_back() -> bool:
    """Whether a large block gets a mapping of its own, so that freeing it returns its memory.

    First, holes of that size that other tests left on the heap are filled.
    """
    libc.mallinfo2.restype = Mallinfo
    holes = [torch.empty(BLOCK, dtype=torch.uint8) for _ in range(HOLES)]
    before = libc.mallinfo2().hblkhd
    block = torch.empty(BLOCK, dtype=torch.uint8)
    mapped = libc.mallinfo2().hblkhd - before >= block.nbytes
    del holes  # they must exist until here
    return mapped


def test_work_that_ends_does_not_disturb_other_work():
    one, other = steady_memory(), steady_memory()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert goes_back()
    other.__exit__(None, None, None)
    assert not goes_back()


def test_work_that_fails_is_counted_out():
    with pytest.raises(ValueError, match="failed"), steady_memory():
        raise ValueError("failed")
    assert steady_memory.at_work == 0
    assert not goes_back()
