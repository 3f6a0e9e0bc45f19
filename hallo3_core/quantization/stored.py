"""Quantised matrices in files, as ComfyUI stores them.

Beside each matrix is its mark: JSON that names the layout, as bytes. The header of the file can
have all marks in `_quantization_metadata`, too.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from .layouts import LAYOUTS, Layout

HEADER = "_quantization_metadata"
VERSION = "1.0"
MARK = "comfy_quant"
BESIDE = MARK, "input_scale", "pre_quant_scale"
"""The tensors beside a quantised matrix that are not parts of it."""
ALIGNMENT = 32
"""Marks are padded to a multiple of this number of bytes, so that the next tensors are aligned."""

Mark = Mapping[str, object]


def mark_of(layout: Layout, options: Mapping[str, object]) -> dict[str, object]:
    return {"format": layout.name, **options}


def as_bytes(mark: Mark) -> Tensor:
    """A mark as the tensor in files, (bytes,) uint8."""
    text = json.dumps(mark).encode()
    return torch.tensor(list(text.ljust(-(-len(text) // ALIGNMENT) * ALIGNMENT)), dtype=torch.uint8)


def header_of(marks: Mapping[str, Mark]) -> dict[str, str]:
    """The metadata of a file with these marks, by the name of the layer; none if there are none."""
    return {HEADER: json.dumps({"format_version": VERSION, "layers": marks})} if marks else {}


def beside(weight: str) -> list[str]:
    """The names of the tensors that can be beside the quantised matrix with this name."""
    layer = weight.removesuffix("weight")
    return [f"{layer}{name}" for name in BESIDE]


def read_mark(weights: Mapping[str, Tensor], weight: str) -> tuple[Layout, dict[str, object]]:
    """The layout of a quantised matrix of `joined` weights, and its options."""
    mark = json.loads(weights[f"{weight.removesuffix('weight')}{MARK}"].numpy().tobytes())
    return _understood(mark)


def joined(
    weights: Mapping[str, Tensor], metadata: Mapping[str, str], file: Path
) -> dict[str, Tensor]:
    """The weights of a file, with each quantised matrix as one tensor instead of its parts.

    It is a QuantizedTensor of comfy-kitchen, which says that it is bfloat16 and has the shape of
    the matrix. Its mark stays beside it, and is added if only the header has it. Raises
    `InputError` if a mark, a scale or a shape is wrong, or if comfy-kitchen is not installed.
    """
    weights = dict(weights)
    for layer, mark in _marks(weights, metadata, file).items():
        name = f"{layer}.weight"
        try:
            layout, options = _understood(mark)
            matrix = _matrix(weights, name, layout, options)
        except _Wrong as error:
            raise InputError(
                f"{file} has a quantised matrix {name} {error}: convert or download it again."
            ) from error
        for end in layout.scales:
            weights.pop(f"{name}{end}", None)
        weights[name] = matrix
        weights[f"{layer}.{MARK}"] = as_bytes(mark)
    _require_marks(weights, file)
    return weights


class _Wrong(Exception):
    """What is wrong with a quantised matrix, in words."""


def _marks(
    weights: Mapping[str, Tensor], metadata: Mapping[str, str], file: Path
) -> dict[str, Mark]:
    """The marks of a file, by the names of the layers. Raises `InputError` if they are damaged."""
    damaged = InputError(
        f"{file} has damaged marks of quantised matrices: convert or download it again."
    )
    try:
        in_header = json.loads(metadata[HEADER])["layers"] if HEADER in metadata else {}
        own = {
            name.removesuffix(f".{MARK}"): json.loads(value.numpy().tobytes())
            for name, value in weights.items()
            if name.endswith(f".{MARK}")
        }
        marks = {**in_header, **own}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged from error
    agree = all(marks[layer] == mark for layer, mark in in_header.items())
    if not agree or not all(isinstance(mark, dict) for mark in marks.values()):
        raise damaged
    return marks


def _understood(mark: Mark) -> tuple[Layout, dict[str, object]]:
    """The layout that a mark names, and its options. Raises `_Wrong` if it is unknown."""
    layout = LAYOUTS.get(str(mark.get("format")))
    if layout is None:
        known = ", ".join(LAYOUTS)
        raise _Wrong(f"in the unknown layout {mark.get('format')!r} (known are {known})")
    inside = mark.get("params")
    found = {**inside, **mark} if isinstance(inside, dict) else mark
    options = {name: found[name] for name in layout.options if name in found}
    wrong = [name for name in options if type(options[name]) is not type(layout.options[name])]
    if wrong:
        raise _Wrong(f"whose {wrong[0]} is {options[wrong[0]]!r}")
    return layout, options


def _matrix(
    weights: Mapping[str, Tensor], name: str, layout: Layout, options: Mapping[str, object]
) -> Tensor:
    """The quantised matrix. Raises `_Wrong` if its parts do not fit together."""
    ends = ("", *layout.scales)
    parts = {end: weights[f"{name}{end}"] for end in ends if f"{name}{end}" in weights}
    missing = [end for end in ends if end not in (*parts, *layout.optional)]
    if missing:
        raise _Wrong(f"without its weight{missing[0]}")
    numbers = parts[""]
    if numbers.dtype != layout.numbers or numbers.ndim != 2:
        raise _Wrong(f"of shape {tuple(numbers.shape)} in {numbers.dtype}, not {layout.numbers}")
    shape = (numbers.shape[0], numbers.shape[1] * layout.packed)
    expected = layout.expected(shape, options)
    if expected is None:
        raise _Wrong(f"of shape {shape}, which {layout.name} {dict(options)} does not divide")
    for end in parts.keys() - {""}:
        parts[end] = _scale(parts[end], expected[end], f"weight{end}")
    return layout.join(parts, options, torch.bfloat16)


def _scale(found: Tensor, expected: Tensor, name: str) -> Tensor:
    """A scale in the dtype and shape of `expected`. One number can be for all rows.

    Raises `_Wrong` for other shapes and dtypes.
    """
    one = found.numel() == 1 and expected.ndim in (0, 2) and expected.dtype == torch.float32
    if not one and found.shape != expected.shape:
        raise _Wrong(f"whose {name} has shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    if expected.dtype == torch.float32 and found.is_floating_point():
        return found.float().reshape(() if one else expected.shape)
    if found.dtype in (expected.dtype, torch.uint8):
        return found.view(expected.dtype)
    raise _Wrong(f"whose {name} is in {found.dtype}, not {expected.dtype}")


def _require_marks(weights: Mapping[str, Tensor], file: Path) -> None:
    """Raise `InputError` if there is a scale of a matrix without a mark."""
    ends: Iterable[str] = {end for layout in LAYOUTS.values() for end in layout.scales}
    lonely = [n for n in weights if any(n.endswith(f".weight{end}") for end in ends)]
    if lonely:
        raise InputError(
            f"{file} has the scale {lonely[0]}, but nothing says in which layout its matrix is: "
            "convert it again."
        )
