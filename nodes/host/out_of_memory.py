"""The error of a node when the device does not have enough memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management

from ...hallo3_core.errors import InputError

SMALLER = "use quantised weights or start ComfyUI with --lowvram"
VAE_ON_CPU = "or start ComfyUI with --cpu-vae"
"""What the user can do, besides closing other programs."""


@contextmanager
def enough_memory(to: str, remedy: str = SMALLER) -> Iterator[None]:
    """If memory runs out, raise an `InputError` that names what there was no memory `to` do.

    All models leave the device first, as after any node of ComfyUI that runs out of memory.
    """
    try:
        yield
    except Exception as error:
        if not comfy.model_management.is_oom(error):
            raise
        comfy.model_management.unload_all_models()
        raise InputError(
            f"There is not enough memory to {to}: close other programs, {remedy}. Queue again to "
            "go on."
        ) from error
