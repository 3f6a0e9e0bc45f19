"""A tensor that behaves as on a card, on any machine."""

from torch import Tensor


class OnCard(Tensor):
    """Until it is moved it gives no array, and is in no operation with a tensor on the CPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name == "numpy":
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name in ("cpu", "to"):
            return Tensor.to(args[0].as_subclass(Tensor), *(args[1:] or ["cpu"]), **(kwargs or {}))
        if any(type(value) is Tensor and value.ndim for value in args):
            raise RuntimeError("Expected all tensors to be on the same device")
        return super().__torch_function__(function, types, args, kwargs)


def on_card(values: Tensor) -> OnCard:
    return values.as_subclass(OnCard)
