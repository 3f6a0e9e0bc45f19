"""Weights put into a network that was made without."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError, some
from ..network.layers import ScaledLinear


def require(names: Iterable[str], weights: Mapping[str, object], source: Path) -> None:
    """Raise `InputError` if any of `names` is not among the weights of `source`."""
    names = list(names)
    missing = [name for name in names if name not in weights]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} of {len(names)} tensors ({some(missing)}): "
            "it is not whole, download or convert it again."
        )


def require_shapes(
    module: nn.Module, weights: Mapping[str, Tensor], names: Mapping[str, str], source: Path
) -> None:
    """Raise `InputError` unless the weights of `source` are what a module's parameters need.

    `names` maps the module's names to those of `weights`.
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
            f"{source} has {len(integers)} tensors of whole numbers ({some(integers)}), which is "
            "a quantisation that is not known here: use bf16, fp16 or fp8."
        )


def fill(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    dtype: torch.dtype,
    source: Path,
) -> None:
    """Put weights into a module made on the meta device, as `dtype`, for inference.

    Weights that come with a scale stay in fp8. Raises `InputError` as `require_shapes` does.
    """
    require_shapes(module, weights, names, source)
    state = {}
    for ours, theirs in names.items():
        scale = weights.get(f"{theirs}_scale")
        state[ours] = weights[theirs] if scale is not None else weights[theirs].to(dtype)
        if scale is not None:
            state[f"{ours}_scale"] = scale.float().reshape(())
            name = ours.removesuffix(".weight")
            linear = module.get_submodule(name)
            sizes = (linear.in_features, linear.out_features, linear.bias is not None)
            module.set_submodule(name, ScaledLinear(*sizes, device="meta"))
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)
