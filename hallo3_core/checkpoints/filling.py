"""Load weights into a network that was made without weights."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError, some
from ..network.weight_formats import ScaledLinear, scale_name


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
            "quantisation is not supported: use a file in bf16, fp16 or fp8."
        )


def fill(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    dtype: torch.dtype,
    source: Path,
) -> None:
    """Load weights into a module made on the meta device, as `dtype`, for inference.

    A weight with a scale (`NAME_scale`) stays in fp8, and its layer becomes a `ScaledLinear`.
    Raises `InputError` as `require_shapes` does.
    """
    require_shapes(module, weights, names, source)
    state = {}
    for ours, theirs in names.items():
        scale = weights.get(scale_name(theirs))
        state[ours] = weights[theirs] if scale is not None else weights[theirs].to(dtype)
        if scale is not None:
            state[scale_name(ours)] = scale.float().reshape(())
            name = ours.removesuffix(".weight")
            outputs, inputs = weights[theirs].shape
            bias = f"{name}.bias" in names
            module.set_submodule(name, ScaledLinear(inputs, outputs, bias, device="meta"))
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)
