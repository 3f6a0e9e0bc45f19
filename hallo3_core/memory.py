"""Memory of the process, where glibc keeps what has been freed."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MIB = 2**20
LARGE_BLOCK = 4 * MIB
USUAL = {M_MMAP_THRESHOLD: 32 * MIB, M_TRIM_THRESHOLD: 64 * MIB}
"""What glibc comes to by itself in a program that frees large blocks."""


@contextmanager
def steady_memory() -> Iterator[None]:
    """Keep the memory of work on tensors of tens of megabytes from growing with its repetition.

    glibc keeps such blocks for reuse and fragments them. Here blocks over 4 MiB go back to the
    system as soon as they are freed, and the rest of what is free when the work is done. Other
    systems' allocators do not need this.
    """
    _set(M_MMAP_THRESHOLD, LARGE_BLOCK)
    try:
        yield
    finally:
        for option, size in USUAL.items():
            _set(option, size)
        return_freed_memory()


def return_freed_memory() -> None:
    """Give the system back what is free on the heap."""
    _call("malloc_trim", 0)


def _set(option: int, size: int) -> None:
    _call("mallopt", option, size)


def _call(name: str, *arguments: int) -> None:
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), name, None)
        if function is not None:
            function(*arguments)
