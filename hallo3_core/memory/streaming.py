"""Matrices that come to the device for their own call alone, the next one while one is at work.

Two buffers take turns. Each has a part on the device and one in pinned main memory, through which
the weights pass on their way from where they rest, be it a memory-mapped file. To pin the weights
themselves would be a second copy of them in main memory that cannot be swapped out, and no faster:
a matrix is at work for longer than it takes to copy.

diffusers' group offloading does not serve here. It traces the order of layers in one `forward`, and
keys and values are made by calls of layers outside; what it has brought by a wrong guess stays on
the device, so that no plan can count it; it pins a copy of all weights beforehand, or pins anew in
every call (`low_cpu_mem_usage`); and it needs accelerate, which is not among our requirements.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Bytes, for kernels that read many at a time."""
BUFFERS = 2
WITH_STREAMS = ("cuda", "xpu", "npu")
"""Devices that copy from pinned memory while they compute."""


def matrices(layer: nn.Module) -> list[nn.Linear]:
    """What is streamed of a layer: all but its norms, which are a thousandth of it."""
    return [module for module in layer.modules() if isinstance(module, nn.Linear)]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers by name."""
    return dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Have these as a module's own parameters and buffers."""
    for name, tensor in tensors.items():
        setattr(module, name, tensor)


def stand_ins(tensors: Mapping[str, Tensor], contents: Iterable[Tensor]) -> dict[str, Tensor]:
    """Parameters and buffers of the same names with other contents, on any device.

    They take the place of the old ones, whose `data` could be changed instead, but not to that of
    every kind of device: torch refuses those that come from outside it, such as Ascend's NPUs.
    """
    return {
        name: nn.Parameter(data, requires_grad=False) if isinstance(old, nn.Parameter) else data
        for (name, old), data in zip(tensors.items(), contents, strict=True)
    }


def room(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors take one after the other, aligned."""
    return sum(-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors)


def views(room_of: Tensor, tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Parts of a buffer of bytes with the shapes and dtypes of `tensors`."""
    start = 0
    for tensor in tensors:
        part = room_of[start : start + tensor.nbytes]
        yield part.view(tensor.dtype).view(tensor.shape)
        start += room([tensor])


class Buffer:
    """Room for the weights of one matrix at a time.

    `arrived` is recorded when they are on the device, `used` when the call that needs them is done.
    """

    def __init__(self, size: int, device: torch.device, backend: ModuleType):
        pinned = device.type in WITH_STREAMS
        self.host = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        self.there = torch.empty(size, dtype=torch.uint8, device=device)
        self.arrived, self.used = backend.Event(), backend.Event()
        self.module: nn.Module | None = None


class Streamer:
    """Brings the matrices of some layers to a device, each for its own calls.

    What follows a matrix is what came after it the last time, and is brought while it is at work.
    A guess that is wrong costs a copy, and nothing else.
    """

    def __init__(self, layers: Iterable[nn.Module], device: torch.device):
        self.device = device
        # torch.cpu has streams and events, too, which do nothing: there copies are done at once
        self.overlaps = device.type in WITH_STREAMS
        self.backend = torch.get_device_module(device) if self.overlaps else torch.cpu
        self.resting: dict[nn.Module, dict[str, Tensor]] = {}
        self.following: dict[nn.Module, nn.Module] = {}
        self.buffers: list[Buffer] = []
        for module in (module for layer in layers for module in matrices(layer)):
            self.resting[module] = tensors_of(module)
            module.register_forward_pre_hook(self._bring)
            module.register_forward_hook(self._leave, always_call=True)
            module.register_forward_hook(self._bring_next)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have the buffers on the device for a while; no layer can be called without them."""
        size = max((room(tensors.values()) for tensors in self.resting.values()), default=0)
        self.side = self.backend.Stream(self.device)
        self.buffers = [Buffer(size, self.device, self.backend) for _ in range(BUFFERS)]
        for buffer in self.buffers:  # what was in its memory before may still be in use
            buffer.used.record(self.backend.current_stream(self.device))
        self.now, self.last = 0, None
        try:
            yield
        finally:
            for buffer in self.buffers:
                buffer.arrived.synchronize()  # before its memory is given to others
            self.buffers = []

    def _bring(self, module: nn.Module, inputs: tuple) -> None:
        if self.last is not None:
            self.following[self.last] = module
        self.last = module
        if not self._is_here(module):
            self._fetch(module)
        self.now = next(i for i, buffer in enumerate(self.buffers) if buffer.module is module)
        buffer = self.buffers[self.now]
        buffer.arrived.wait(self.backend.current_stream(self.device))
        resting = self.resting[module]
        put(module, stand_ins(resting, views(buffer.there, resting.values())))

    def _leave(self, module: nn.Module, inputs: tuple, outputs) -> None:
        self.buffers[self.now].used.record(self.backend.current_stream(self.device))
        put(module, self.resting[module])

    def _bring_next(self, module: nn.Module, inputs: tuple, outputs) -> None:
        following = self.following.get(module)
        if following is not None and not self._is_here(following):
            self._fetch(following)

    def _is_here(self, module: nn.Module) -> bool:
        """Whether a module's weights are in a buffer, or on their way."""
        return any(buffer.module is module for buffer in self.buffers)

    def _fetch(self, module: nn.Module) -> None:
        """Start to bring a module's weights, into the buffer that is not in use."""
        buffer, resting = self.buffers[1 - self.now], [*self.resting[module].values()]
        buffer.arrived.synchronize()  # its part in main memory was read
        for part, tensor in zip(views(buffer.host, resting), resting, strict=True):
            part.copy_(tensor)
        size = room(resting)
        buffer.used.wait(self.side)  # its part on the device was used
        with self.backend.stream(self.side):
            buffer.there[:size].copy_(buffer.host[:size], non_blocking=self.overlaps)
        buffer.arrived.record(self.side)
        buffer.module = module
