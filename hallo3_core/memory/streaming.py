"""Streams weight matrices: each is on the device only for its own call.

The next matrix is copied while the current one computes. Two buffers alternate. Each buffer has a
part on the device and a part in pinned main memory. Weights pass through the pinned part, because
they may be in a memory-mapped file. Pinning the weights themselves would need a second copy in main
memory that cannot be swapped out. It would not be faster: a matrix computes longer than its copy
takes.

diffusers' group offloading cannot be used here:

- It records the order of layers in one `forward`, but keys and values are computed by calls of
  layers outside of it.
- If it copies a wrong layer, that layer stays on the device, so no plan can count it.
- It pins a copy of all weights in advance, or pins again in every call (`low_cpu_mem_usage`).
- It needs accelerate, which is not one of our requirements.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Bytes. Some kernels need aligned tensors because they read many bytes at a time."""
BUFFERS = 2
WITH_STREAMS = ("cuda", "xpu", "npu")
"""Types of devices that can copy from pinned memory while they compute."""


def matrices(layer: nn.Module) -> list[nn.Linear]:
    """The modules of a layer that are streamed: all but its norms, 0.1 % of its weights."""
    return [module for module in layer.modules() if isinstance(module, nn.Linear)]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module by name, without those of its submodules."""
    return dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set parameters and buffers of a module."""
    for name, tensor in tensors.items():
        setattr(module, name, tensor)


def stand_ins(tensors: Mapping[str, Tensor], contents: Iterable[Tensor]) -> dict[str, Tensor]:
    """Parameters and buffers with the names of `tensors` and other contents, on any device.

    They replace the old ones. Setting `data` of the old ones would not work on every device: torch
    refuses it for devices from outside of torch, such as Ascend's NPUs.
    """
    return {
        name: nn.Parameter(data, requires_grad=False) if isinstance(old, nn.Parameter) else data
        for (name, old), data in zip(tensors.items(), contents, strict=True)
    }


def room(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors need one after the other, each aligned to `ALIGNMENT`."""
    return sum(-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors)


def views(room_of: Tensor, tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield parts of a buffer (bytes,) uint8 with the shapes and dtypes of `tensors`."""
    start = 0
    for tensor in tensors:
        part = room_of[start : start + tensor.nbytes]
        yield part.view(tensor.dtype).view(tensor.shape)
        start += room([tensor])


class Buffer:
    """Memory for the weights of one matrix.

    The event `arrived` is recorded after the copy to the device, and `used` after the call that
    needs the weights.
    """

    def __init__(self, size: int, device: torch.device, backend: ModuleType):
        pinned = device.type in WITH_STREAMS
        self.host = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        self.there = torch.empty(size, dtype=torch.uint8, device=device)
        self.arrived, self.used = backend.Event(), backend.Event()
        self.module: nn.Module | None = None


class Streamer:
    """Copies the matrices of layers to the device, each for its own calls.

    While a matrix computes, the next one is copied: the one that followed it last time. A wrong
    guess costs one copy, and nothing else.
    """

    def __init__(self, layers: Iterable[nn.Module], device: torch.device):
        self.device = device
        # the streams and events of torch.cpu do nothing, so copies on the CPU are synchronous
        self.overlaps = device.type in WITH_STREAMS
        self.backend = torch.get_device_module(device) if self.overlaps else torch.cpu
        self.resting: dict[nn.Module, dict[str, Tensor]] = {}
        self.following: dict[nn.Module, nn.Module] = {}
        self.buffers: list[Buffer] = []
        self.last: nn.Module | None = None
        for module in (module for layer in layers for module in matrices(layer)):
            self.resting[module] = tensors_of(module)
            module.register_forward_pre_hook(self._bring)
            module.register_forward_hook(self._leave, always_call=True)
            module.register_forward_hook(self._bring_next)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Allocate the buffers inside this context. Layers can be called only inside it."""
        size = max((room(tensors.values()) for tensors in self.resting.values()), default=0)
        self.side = self.backend.Stream(self.device)
        self.buffers = [Buffer(size, self.device, self.backend) for _ in range(BUFFERS)]
        for buffer in self.buffers:  # earlier work may still use this memory
            buffer.used.record(self.backend.current_stream(self.device))
        self.now, self.last = 0, None
        try:
            yield
        finally:
            for buffer in self.buffers:
                buffer.arrived.synchronize()  # before its memory is freed
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
        """Whether the weights of a module are in a buffer, or are being copied."""
        return any(buffer.module is module for buffer in self.buffers)

    def _fetch(self, module: nn.Module) -> None:
        """Start to copy the weights of a module into the buffer that is not in use."""
        buffer, resting = self.buffers[1 - self.now], [*self.resting[module].values()]
        buffer.arrived.synchronize()  # until its part in main memory has been read
        for part, tensor in zip(views(buffer.host, resting), resting, strict=True):
            part.copy_(tensor)
        size = room(resting)
        buffer.used.wait(self.side)  # until its part on the device has been used
        with self.backend.stream(self.side):
            buffer.there[:size].copy_(buffer.host[:size], non_blocking=self.overlaps)
        buffer.arrived.record(self.side)
        buffer.module = module
