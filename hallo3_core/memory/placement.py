"""Moves networks to the device. If not all fit, each is on the device only while it works."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from operator import methodcaller

import torch
from torch import Tensor, nn

from ..network.layers import Context, mapped
from .streaming import Streamer, put, stand_ins, tensors_of


class Placement:
    """Says where networks are: always on `device`, or in main memory between tasks (`in_turn`)."""

    def __init__(self, device: torch.device | str = "cpu", in_turn: bool = False):
        self.device = torch.device(device)
        self.in_turn = in_turn
        self.streamers: dict[nn.Module, Streamer] = {}

    def add(self, network: nn.Module, streamed: Iterable[nn.Module] = ()) -> None:
        """Add a network, and move it to its resting place.

        The matrices of the layers in `streamed` are copied to the device one by one.
        """
        if not self.in_turn:
            # not diffusers' own `to`: it logs a warning about an empty list of exceptions
            nn.Module.to(network, self.device)
        layers = list(streamed)
        if layers:
            self.streamers[network] = Streamer(layers, self.device)

    @contextmanager
    def working(self, *networks: nn.Module) -> Iterator[None]:
        """Keep the networks on the device inside this context."""
        streamers = [self.streamers[network] for network in networks if network in self.streamers]
        streamed = {module for streamer in streamers for module in streamer.resting}
        moving = (module for network in networks if self.in_turn for module in network.modules())
        with ExitStack() as stack:
            for module in moving:
                if module not in streamed:
                    resting = tensors_of(module)
                    stack.callback(put, module, resting)
                    put(module, stand_ins(resting, map(self._copied, resting.values())))
            for streamer in streamers:
                stack.enter_context(streamer.open())
            yield

    def _copied(self, tensor: Tensor) -> Tensor:
        return tensor.data.to(self.device, copy=True)

    def rest(self, contexts: Iterable[Context]) -> list[Context]:
        """Move keys and values to their resting place: main memory if `in_turn`, or the device."""
        return _moved(contexts, torch.device("cpu") if self.in_turn else self.device)

    def bring(self, contexts: Iterable[Context]) -> list[Context]:
        """Keys and values on the device. They stay there as long as the result is referenced."""
        return _moved(contexts, self.device)


def _moved(contexts: Iterable[Context], device: torch.device) -> list[Context]:
    return [mapped(context, methodcaller("to", device)) for context in contexts]
