"""What a value is, as a short text: equal values have equal fingerprints, others do not."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from hashlib import sha256

import torch
from torch import Tensor, nn

Parts = Callable[[object], object]
"""What to look at in place of an object that is not known here; raises `Unknown`."""


class Unknown(TypeError):
    """A value that cannot be told from others, with what it is as the message."""


def no_others(value: object) -> object:
    raise Unknown(f"{type(value).__module__}.{type(value).__qualname__}")


def fingerprint(value: object, parts: Parts = no_others) -> str:
    """64 hexadecimal digits that stand for a value.

    Known are numbers, texts, bytes, None, slices, torch's dtypes and devices, tensors (by their
    numbers, dtype and shape, wherever they are), modules (by class, settings and state),
    dataclasses, and lists, tuples, sets and dicts of such. `parts` says what of any other object
    counts. Raises `Unknown`.
    """
    return _digest(value, parts, ()).hex()


def _digest(value: object, parts: Parts, around: tuple[int, ...]) -> bytes:
    if id(value) in around:
        return b"again"  # an object that holds itself
    around = (*around, id(value))

    def all_of(values: Iterable) -> list[bytes]:
        return [_digest(part, parts, around) for part in values]

    match value:
        case None | bool() | int() | float() | str() | bytes():
            content = [repr(value).encode()]
        case torch.dtype() | torch.device():
            content = [str(value).encode()]
        case slice():
            content = all_of((value.start, value.stop, value.step))
        case Tensor():
            content = [_tensor_digest(value)]
        case nn.Module():
            classes = [kind.__qualname__ for kind in type(value).__mro__]
            content = all_of([classes, settings_of(value), weights_fingerprint(value.state_dict())])
        case dict():
            content = sorted(b"".join(all_of(pair)) for pair in value.items())
        case list() | tuple():
            content = all_of(value)
        case set() | frozenset():
            content = sorted(all_of(value))
        case _ if is_dataclass(value) and not isinstance(value, type):
            content = all_of((field.name, getattr(value, field.name)) for field in fields(value))
        case _:
            content = all_of([parts(value)])
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return sha256(b"".join([kind.encode(), *(sha256(part).digest() for part in content)])).digest()


def _tensor_digest(tensor: Tensor) -> bytes:
    numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest = sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(numbers.numpy().data)
    return digest.digest()


def settings_of(module: nn.Module) -> dict[str, object]:
    """The plain values that a module has beside its state."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (value is None or isinstance(value, int | float | str) or is_dataclass(value))
    }


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """The fingerprint of named tensors, by several threads: the released model has 20 GB."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
        digests = threads.map(_tensor_digest, weights.values())
        parts = [f"{name} {digest.hex()}" for name, digest in zip(weights, digests, strict=True)]
    return sha256("\n".join(sorted(parts)).encode()).hexdigest()
