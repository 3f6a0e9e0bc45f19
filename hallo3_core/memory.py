"""Memory of the process."""

import ctypes
import sys

M_MMAP_THRESHOLD = -3
LARGE_BLOCK = 4 * 2**20


def return_large_blocks_at_once() -> None:
    """Have every block over 4 MiB given back as soon as it is freed, for the rest of the process.

    For programs of our own: glibc otherwise raises that size as it goes, up to 32 MiB.
    """
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)
        if set_option is not None:
            set_option(M_MMAP_THRESHOLD, LARGE_BLOCK)


def return_freed_memory() -> None:
    """Give the system back what is free on the heap.

    glibc keeps blocks of tens of megabytes for reuse and fragments them, so that a long video
    would take more and more; other systems' allocators do not need this.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
