"""Returning freed memory to the system. Without this, glibc keeps it for the process."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MIB = 2**20
AT_WORK = {M_MMAP_THRESHOLD: 4 * MIB}
USUAL = {M_MMAP_THRESHOLD: 32 * MIB, M_TRIM_THRESHOLD: 64 * MIB}
"""The values that glibc adapts to by itself in a program that frees large blocks."""


class SteadyMemory:
    """A context in which repeated work on large tensors does not take more and more memory.

    glibc keeps freed blocks of tens of megabytes for reuse, and fragments them. Inside this
    context, a block over 4 MiB goes back to the system as soon as it is freed. At the end, all
    other free memory goes back, too. The setting holds for the whole process, until the last
    thread has left the context, so do not wait for anything inside it. Allocators of other systems
    do not need this.
    """

    def __init__(self):
        self.lock, self.at_work = Lock(), 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)
            return_freed_memory()

    def _count(self, change: int) -> None:
        with self.lock:
            before, self.at_work = self.at_work, self.at_work + change
            if before and self.at_work:
                return
            for option, size in (AT_WORK if self.at_work else USUAL).items():
                _call("mallopt", option, size)


steady_memory = SteadyMemory()


def return_freed_memory() -> None:
    """Return free memory of the heap to the system."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library, if it has this function."""
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), name, None)
        if function is not None:
            function(*arguments)
