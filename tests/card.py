"""A card that is not there: what tensors without a device would take on it, at every stage.

Weights rest without a device, too, and do not count until they are copied.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from training.peak import Peak

META = torch.device("meta")
CPU = torch.device("cpu")


class Card(Peak):
    """Counts what is on the card beside networks that rest; what leaves it is all zeros."""

    def __init__(self, *networks: nn.Module):
        super().__init__(nn.ModuleList(networks))
        self.stages: dict[str, float] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        places = [tensor.device for tensor in args if isinstance(tensor, torch.Tensor)]
        if function is torch.ops.aten._local_scalar_dense.default and places == [META]:
            return True  # whether all numbers are finite
        if function is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") == CPU:
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if function is torch.ops.aten.copy_.default and places == [CPU, META]:
            return args[0]
        return super().__torch_dispatch__(function, types, args, kwargs)

    def see(self, storage: torch.UntypedStorage) -> None:
        if storage.device == META:
            super().see(storage)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note the peak of a part of the work."""
        self.bytes = sum(self.alive.values())
        yield
        self.stages[name] = max(self.bytes, self.stages.get(name, 0))
