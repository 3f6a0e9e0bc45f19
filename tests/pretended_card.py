"""A graphics card where there is none: CPU tensors that say they are on one.

As on a real card, an operation on tensors from both sides fails, and so does `numpy()`.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CARD = torch.device("lazy", 0)
"""A kind of device that torch knows and nobody has."""
BETWEEN = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default
"""Operations that go from one device to the other."""


class OnCard(Tensor):
    """A tensor on the card; `there` is the same on the CPU."""

    @staticmethod
    def __new__(cls, there: Tensor):
        layout = there.shape, there.stride(), there.storage_offset()
        return Tensor._make_wrapper_subclass(cls, *layout, dtype=there.dtype, device=CARD)

    def __init__(self, there: Tensor):
        self.there = there

    def tolist(self) -> list:
        return self.there.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class PretendedCard(TorchDispatchMode):
    """While it lasts, tensors can be made on `CARD` and moved there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def computed(function, args: tuple, kwargs: dict):
    """The operation, on the CPU; its result is where a card would have it."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    on_card = [isinstance(value, OnCard) for value in tensors]
    beside = [value for value in tensors if not isinstance(value, OnCard) and value.ndim]
    if any(on_card) and beside and function not in BETWEEN:
        raise RuntimeError(f"{function} of tensors on two devices, {CARD} and cpu")
    there = on_card[0] if function in BETWEEN else any(on_card)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == CARD.type
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map_only(OnCard, lambda value: value.there, (args, kwargs))
    result = function(*args, **kwargs)
    return tree_map_only(Tensor, OnCard, result) if there else result
