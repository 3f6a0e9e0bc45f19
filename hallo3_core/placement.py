"""Networks that are on a device only while they work, where not all fit together."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Placement:
    """Where networks are: on `device` all the time, or (`in_turn`) in main memory between tasks."""

    def __init__(self, device: torch.device | str = "cpu", in_turn: bool = False):
        self.device = torch.device(device)
        self.in_turn = in_turn
        self.streamed: set[Tensor] = set()

    def add(self, network: nn.Module, streamed: nn.ModuleList | tuple = ()) -> None:
        """Put a network where it is to rest; layers among `streamed` come one by one."""
        if not self.in_turn:
            # past diffusers' own `to`, which warns of an empty list of exceptions
            nn.Module.to(network, self.device)
        for layer in streamed:
            for module in layer.modules():
                self._stream(module)

    def _stream(self, module: nn.Module) -> None:
        """Let the parameters of a module come for each of its calls."""
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if not tensors:
            return
        self.streamed.update(tensors)
        resting: list[Tensor] = []

        def bring(module, inputs) -> None:
            resting[:] = self._move(tensors)

        def leave(module, inputs, outputs) -> None:
            self._put(tensors, resting)

        module.register_forward_pre_hook(bring)
        module.register_forward_hook(leave, always_call=True)

    @contextmanager
    def working(self, *networks: nn.Module) -> Iterator[None]:
        """Have networks on the device for a while."""
        tensors = [
            tensor
            for network in networks
            if self.in_turn
            for tensor in (*network.parameters(), *network.buffers())
            if tensor not in self.streamed
        ]
        resting = self._move(tensors)
        try:
            yield
        finally:
            self._put(tensors, resting)

    def _move(self, tensors: list[Tensor]) -> list[Tensor]:
        """Bring tensors to the device. What they held in main memory, which stays there."""
        resting = [tensor.data for tensor in tensors]
        self._put(tensors, [data.to(self.device, copy=True) for data in resting])
        return resting

    @staticmethod
    def _put(tensors: list[Tensor], contents: list[Tensor]) -> None:
        for tensor, data in zip(tensors, contents, strict=True):
            tensor.data = data
