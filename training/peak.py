"""Counting memory on tensors without contents."""

import weakref

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Bytes of tensors that are alive at once, beside a network's own weights."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.weights = [parameter.untyped_storage() for parameter in network.parameters()]
        self.alive = dict.fromkeys((storage._cdata for storage in self.weights), 0)
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.see(tensor.untyped_storage())
        self.bytes = max(self.bytes, sum(self.alive.values()))
        return result

    def see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage._cdata)
