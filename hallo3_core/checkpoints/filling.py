"""Load weights into a network that was made without weights."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, some
from ..quantization.layouts import is_quantized
from ..quantization.linear import QuantizedLinear
from ..quantization.stored import read_mark


def require(names: Iterable[str], weights: Collection[str], source: Path) -> None:
    """Raise `InputError` if any of `names` is missing from the weights of `source`."""
    names = list(names)
    missing = [name for name in names if name not in weights]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} of {len(names)} tensors ({some(missing)}): "
            "the file is incomplete, download or convert it again."
        )


def require_shapes(
    module: nn.Module, weights: Mapping[str, Tensor], names: Mapping[str, str], source: Path
) -> None:
    """Raise `InputError` unless `weights` has all tensors of a module, in their shapes, as floats.

    `names` maps the names of the module's tensors to the names in `weights`. `source` is the file
    of the weights, for errors.
    """
    require(names.values(), weights, source)
    wrong = [
        f"{names[ours]} is {tuple(weights[names[ours]].shape)}, not {tuple(value.shape)}"
        for ours, value in module.state_dict().items()
        if weights[names[ours]].shape != value.shape
    ]
    if wrong:
        raise InputError(
            f"{source} has {len(wrong)} tensors of the wrong shape ({some(wrong)}): "
            "choose a file that belongs to this model."
        )
    integers = [name for name in names.values() if not weights[name].is_floating_point()]
    if integers:
        raise InputError(
            f"{source} has {len(integers)} integer tensors ({some(integers)}), and this "
            "quantisation is not known: use a file that `convert` makes."
        )


def fill(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    dtype: torch.dtype,
    source: Path,
) -> None:
    """Load weights into a module made on the meta device, as `dtype`, for inference.

    A quantised weight stays quantised, and its layer becomes a `QuantizedLinear`. Raises
    `InputError` as `require_shapes` does.
    """
    require_shapes(module, weights, names, source)
    state: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        weight = weights[theirs]
        if is_quantized(weight):
            layer = ours.removesuffix(".weight")
            bias: Any = module.get_submodule(layer).bias
            smoothing = weights.get(f"{theirs.removesuffix('weight')}pre_quant_scale")
            linear = QuantizedLinear(*read_mark(weights, theirs), weight, bias, smoothing)
            module.set_submodule(layer, linear)
            state |= {f"{layer}.{name}": part for name, part in linear.named_buffers()}
        else:
            state[ours] = weight.to(dtype)
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)
