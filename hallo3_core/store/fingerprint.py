"""Fingerprints of values: equal values have the same one, different values different ones."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from hashlib import sha256

import torch
from torch import Tensor, nn

Parts = Callable[[object], object]
"""Returns a value that stands for an object of another type, or raises `Unknown`."""


class Unknown(TypeError):
    """A value that has no fingerprint. The message is its type."""


def no_others(value: object) -> object:
    """Raise `Unknown`: objects of other types have no fingerprint."""
    raise Unknown(f"{type(value).__module__}.{type(value).__qualname__}")


def fingerprint(value: object, parts: Parts = no_others) -> str:
    """The fingerprint of a value: 64 hexadecimal digits, a SHA-256 hash.

    A value can be a number, text, bytes, None, a slice, a dtype or device of torch, a tensor (its
    numbers, dtype and shape count, not its device), a module (class, settings and state count), a
    dataclass, or a list, tuple, set or dict of such values. For any other object, the result of
    `parts` counts. Raises `Unknown` if `parts` does.
    """
    return _digest(value, parts, ()).hex()


def _digest(value: object, parts: Parts, around: tuple[int, ...]) -> bytes:
    if id(value) in around:
        return b"again"  # an object that contains itself
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
    """The plain attributes of a module that are not in its state dict."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (value is None or isinstance(value, int | float | str) or is_dataclass(value))
    }


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """The fingerprint of named tensors. Several threads hash them: the released model has 20 GB."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
        digests = threads.map(_tensor_digest, weights.values())
        parts = [f"{name} {digest.hex()}" for name, digest in zip(weights, digests, strict=True)]
    return sha256("\n".join(sorted(parts)).encode()).hexdigest()
