"""Memory of the process."""

import ctypes
import sys


def return_freed_memory() -> None:
    """Give the system back what is free on the heap.

    glibc keeps blocks of tens of megabytes for reuse and fragments them, so that a long video
    would take more and more; other systems' allocators do not need this.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
