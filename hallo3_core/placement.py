"""Networks that are on a device only while they work, where not all fit together."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from .layers import KeyValue
from .streaming import Streamer


class Placement:
    """Where networks are: on `device` all the time, or (`in_turn`) in main memory between tasks."""

    def __init__(self, device: torch.device | str = "cpu", in_turn: bool = False):
        self.device = torch.device(device)
        self.in_turn = in_turn
        self.streamers: dict[nn.Module, Streamer] = {}

    def add(self, network: nn.Module, streamed: Iterable[nn.Module] = ()) -> None:
        """Put a network where it is to rest; matrices of layers in `streamed` come one by one."""
        if not self.in_turn:
            # past diffusers' own `to`, which warns of an empty list of exceptions
            nn.Module.to(network, self.device)
        layers = list(streamed)
        if layers:
            self.streamers[network] = Streamer(layers, self.device)

    @contextmanager
    def working(self, *networks: nn.Module) -> Iterator[None]:
        """Have networks on the device for a while."""
        streamers = [self.streamers[network] for network in networks if network in self.streamers]
        streamed = {tensor for streamer in streamers for tensor in streamer.streamed}
        tensors = [
            tensor
            for network in networks
            if self.in_turn
            for tensor in (*network.parameters(), *network.buffers())
            if tensor not in streamed
        ]
        resting = [tensor.data for tensor in tensors]
        with ExitStack() as stack:
            stack.callback(_put, tensors, resting)
            for tensor, data in zip(tensors, resting, strict=True):
                tensor.data = data.to(self.device, copy=True)
            for streamer in streamers:
                stack.enter_context(streamer.open())
            yield

    def rest(self, keys_values: Iterable[KeyValue]) -> list[KeyValue]:
        """Keys and values of all layers as they wait between tasks, in main memory if in turn."""
        return _moved(keys_values, torch.device("cpu") if self.in_turn else self.device)

    def bring(self, keys_values: Iterable[KeyValue]) -> list[KeyValue]:
        """Keys and values on the device, for as long as the result is kept."""
        return _moved(keys_values, self.device)


def _moved(keys_values: Iterable[KeyValue], device: torch.device) -> list[KeyValue]:
    return [(key.to(device), value.to(device)) for key, value in keys_values]


def _put(tensors: list[Tensor], contents: list[Tensor]) -> None:
    for tensor, data in zip(tensors, contents, strict=True):
        tensor.data = data
