"""Chooses the device and the dtype to compute in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import InputError, NotEnoughMemory
from ..network.weight_formats import COMPUTE_DTYPES

IMITATING = ("cuda", "xpu")
"""Backends whose `is_bf16_supported` also accepts slow emulation, unless told not to."""


def choose_device(name: str | None) -> torch.device:
    """The device with this name. Without a name: cuda if available, or else the CPU.

    Raises `InputError` if the device cannot be used.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.ones(1, device=name)
        probe.item()
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0][:100].rstrip(".")
        raise InputError(f"The device {name} cannot be used ({reason}): try cpu.") from error


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The dtype with this name, a key of `COMPUTE_DTYPES`. Without a name, the best for the device.

    The best is float32 on the CPU, bfloat16 where the device supports it, and float16 elsewhere.
    """
    if name is not None:
        return COMPUTE_DTYPES[name]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if has_bfloat16(device) else torch.float16


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device supports bfloat16 in hardware. Slow emulation does not count."""
    backend = torch.get_device_module(device)
    if hasattr(backend, "is_bf16_supported"):
        options = {"including_emulation": False} if device.type in IMITATING else {}
        with backend.device(device):
            return backend.is_bf16_supported(**options)
    try:
        torch.ones(1, dtype=torch.bfloat16, device=device)
        return True
    except (RuntimeError, TypeError):
        return False


@contextmanager
def enough_memory(task: str, *remedies: str) -> Iterator[None]:
    """Raise `NotEnoughMemory` if the device runs out of memory inside this context.

    The error names the `task` ("encode the portrait") and the `remedies` that the user can try.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        ways = ", ".join(("close other programs", *remedies, "or use --device cpu"))
        raise NotEnoughMemory(f"There is not enough memory to {task}: {ways}.") from error
