"""Memory of the process, where glibc keeps what has been freed."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MIB = 2**20
AT_WORK = {M_MMAP_THRESHOLD: 4 * MIB}
USUAL = {M_MMAP_THRESHOLD: 32 * MIB, M_TRIM_THRESHOLD: 64 * MIB}
"""What glibc comes to by itself in a program that frees large blocks."""


class SteadyMemory:
    """Keeps the memory of work on tensors of tens of megabytes from growing with its repetition.

    glibc keeps such blocks for reuse and fragments them. While this is entered, blocks over 4 MiB
    go back to the system as soon as they are freed, and with it the rest of what is free when the
    work is done. The setting is the process's: it lasts until the last of the threads that are at
    work is done, so do not wait for anything in between. Other systems' allocators do not need
    this.
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
    """Give the system back what is free on the heap."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), name, None)
        if function is not None:
            function(*arguments)
