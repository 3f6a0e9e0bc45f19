"""Two pretended graphics cards, as `torch.npu`.

`accelerator.cpp` describes what they do. ComfyUI knows the name `npu`. torch has no module
`torch.npu`, so this file provides the parts that the pack and ComfyUI need. The memory of each card
is counted and can be limited.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch.utils import cpp_extension

NAME = "npu"
CARD = torch.device("privateuseone", 0)
"""The first card. torch renames this type of device."""
MEMORY = 8 * 2**30
"""The bytes of a card without a limit."""
UNLIMITED = 2**63 - 1


@cache
def accelerator() -> ModuleType:
    """The backend, built with the C++ compiler of this machine. The first build takes a minute."""
    source = Path(__file__).with_name("accelerator.cpp")
    version = sha256(source.read_bytes()).hexdigest()[:12]
    return cpp_extension.load(f"hallo3_card_{version}", [source], extra_cflags=["-O1"])


def index_of(device: torch.device | str | int | None = None) -> int:
    if device is None:
        return accelerator().current_card()
    index = device if isinstance(device, int) else torch.device(device).index
    return accelerator().current_card() if index is None else index


class Npu(ModuleType):
    """The functions of `torch.cuda` that the pack and ComfyUI use."""

    Stream, Event = torch.Stream, torch.Event
    OutOfMemoryError = torch.OutOfMemoryError

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Do nothing. No random numbers are drawn on these cards."""

    @staticmethod
    def device_count() -> int:
        return accelerator().CARDS

    @staticmethod
    def current_device() -> int:
        return accelerator().current_card()

    @staticmethod
    def set_device(device) -> None:
        accelerator().set_card(index_of(device))

    @staticmethod
    @contextmanager
    def device(device) -> Iterator[None]:
        before = accelerator().current_card()
        accelerator().set_card(index_of(device))
        try:
            yield
        finally:
            accelerator().set_card(before)

    @staticmethod
    def get_device_name(device=None) -> str:
        return "pretended card"

    @staticmethod
    def get_device_properties(device=None) -> SimpleNamespace:
        total = Npu.mem_get_info(device)[1]
        return SimpleNamespace(name="pretended card", total_memory=total, major=9, minor=0)

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    @staticmethod
    def is_bf16_supported() -> bool:
        return True

    @staticmethod
    def current_stream(device=None) -> torch.Stream:
        return torch.accelerator.current_stream(f"{NAME}:{index_of(device)}")

    @staticmethod
    @contextmanager
    def stream(stream: torch.Stream | None) -> Iterator[None]:
        if stream is None:
            yield
        else:
            with stream:
                yield

    @staticmethod
    def synchronize(device=None) -> None:
        torch.accelerator.synchronize(f"{NAME}:{index_of(device)}")

    @staticmethod
    def empty_cache() -> None:
        """Do nothing. Nothing is cached."""

    @staticmethod
    def ipc_collect() -> None:
        """Do nothing. Nothing is shared."""

    @staticmethod
    def mem_get_info(device=None) -> tuple[int, int]:
        """The free bytes of a card, and all its bytes."""
        total = min(accelerator().limit(index_of(device)), MEMORY)
        return total - accelerator().live(index_of(device)), total

    @staticmethod
    def memory_allocated(device=None) -> int:
        return accelerator().live(index_of(device))

    @staticmethod
    def max_memory_allocated(device=None) -> int:
        return accelerator().peak(index_of(device))

    @staticmethod
    def reset_peak_memory_stats(device=None) -> None:
        accelerator().reset_peak(index_of(device))

    @staticmethod
    def memory_stats(device=None) -> dict[str, int]:
        live = Npu.memory_allocated(device)
        return {"reserved_bytes.all.current": live, "active_bytes.all.current": live}


def install() -> None:
    """Make `npu` the only type of card in this process. This cannot be undone."""
    accelerator()
    torch.version.cuda = None
    torch.utils.rename_privateuse1_backend(NAME)
    module = Npu(f"torch.{NAME}")
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()


@contextmanager
def found_by_comfyui() -> Iterator[None]:
    """Let ComfyUI find these cards while it is imported inside this context.

    The module `torch_npu` exists only inside it. Otherwise diffusers would import from it.
    """
    sys.modules["torch_npu"] = ModuleType("torch_npu")
    try:
        yield
    finally:
        del sys.modules["torch_npu"]


@contextmanager
def limited(size: int, card: int = 0) -> Iterator[None]:
    """Give a card `size` bytes inside this context."""
    accelerator().set_limit(card, size)
    try:
        yield
    finally:
        accelerator().set_limit(card, UNLIMITED)


@contextmanager
def peak(card: int = 0) -> Iterator[SimpleNamespace]:
    """Count the peak bytes on a card inside this context, without the bytes used before."""
    found, start = SimpleNamespace(bytes=0), accelerator().live(card)
    accelerator().reset_peak(card)
    yield found
    found.bytes = accelerator().peak(card) - start
