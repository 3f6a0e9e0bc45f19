"""The formats of weights, in files and in memory. A new format is added here."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ..quantization.layouts import LAYOUTS, Layout
from ..quantization.linear import QuantizedLinear

MATRIX = re.compile(r"layers\.\d+\.(?P<kind>.+)\.weight")
"""The name of a layer's matrix in our names, with the kind of matrix."""


@dataclass(frozen=True, eq=False)
class WeightFormat:
    """The format of a model's weights.

    `name` is the name in files and options. The model computes in `dtype`. Matrices of the layers
    are quantised in `layout`, if there is one, and all other weights have the dtype. `apart` has
    the kinds of matrices that have another layout, or the dtype (None). `reference` is the layout
    of the reference network, if that is another one.
    """

    name: str
    dtype: torch.dtype
    layout: Layout | None = None
    apart: Mapping[str, Layout | None] = field(default_factory=dict)
    reference: Layout | None = None

    @property
    def bytes(self) -> float:
        """The bytes of a number in most matrices, without their scales."""
        if self.layout is None:
            return self.dtype.itemsize
        return self.layout.numbers.itemsize / self.layout.packed

    @property
    def of_reference(self) -> "WeightFormat":
        """The format of the reference network."""
        if self.reference is None:
            return self
        return WeightFormat(self.name, self.dtype, self.reference)

    def layout_of(self, name: str, shape: tuple[int, ...]) -> Layout | None:
        """The layout of a tensor with this name (ours) and shape; None if it is not quantised."""
        matrix = MATRIX.fullmatch(name)
        if self.layout is None or matrix is None or len(shape) != 2:
            return None
        layout = self.apart.get(matrix["kind"], self.layout)
        return layout if layout and layout.expected(shape) else None

    def bytes_of(self, name: str, shape: tuple[int, ...], size: int) -> int:
        """The bytes of a tensor with this name (ours) and shape.

        Numbers take `size` bytes in what is neither quantised nor a matrix of a layer.
        """
        layout = self.layout_of(name, shape)
        if layout is not None:
            return sum(part.nbytes for part in (layout.expected(shape) or {}).values())
        if self.layout is None and len(shape) == 2 and MATRIX.fullmatch(name):
            size = self.dtype.itemsize
        return torch.Size(shape).numel() * size


def _quantized(name: str, layout: str, finer: str = "", *kinds: str) -> WeightFormat:
    """Matrices in a layout, and these kinds and the reference network in a finer one."""
    other = LAYOUTS.get(finer)
    apart = dict.fromkeys(kinds, other)
    return WeightFormat(name, torch.bfloat16, LAYOUTS[layout], apart, other)


QKV, OUT = "query_key_value", "attention_out"
"""The kinds of matrices whose rounding changes latents most, for their size."""
FORMATS = {
    "bf16": WeightFormat("bf16", torch.bfloat16),
    "fp16": WeightFormat("fp16", torch.float16),
    "fp8": _quantized("fp8_e4m3fn", "float8_e4m3fn"),
    "fp8_e5m2": _quantized("fp8_e5m2", "float8_e5m2"),
    "mxfp8": _quantized("mxfp8", "mxfp8"),
    "int8_tensorwise": _quantized("int8_tensorwise", "int8_tensorwise"),
    "nvfp4": _quantized("nvfp4", "nvfp4", "float8_e4m3fn", QKV),
    "asym_w4a8_int8": _quantized("asym_w4a8_int8", "asym_w4a8_int8", "int8_tensorwise", OUT),
    "convrot_w4a4": _quantized("convrot_w4a4", "convrot_w4a4", "int8_tensorwise", QKV, OUT),
    "fp32": WeightFormat("fp32", torch.float32),
}
"""The formats, by the names that the memory plan uses.

docs/weights.md says how the layouts were chosen: in four bits, all layers fit on a card of 8 GB.
"""
BY_NAME = {kind.name: kind for kind in FORMATS.values()}
STORED = tuple(name for name in BY_NAME if name != "fp32")
"""The names of the formats of large weights. fp32 is only for small networks."""
COMPUTE_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
}


def quantize_layers(network: nn.Module, kind: WeightFormat) -> None:
    """Quantise the matrices of a transformer's layers, in place, as `convert` does in files."""
    for name, module in [*network.named_modules()]:
        if isinstance(module, nn.Linear):
            shape = (module.out_features, module.in_features)
            if layout := kind.layout_of(f"{name}.weight", shape):
                network.set_submodule(name, QuantizedLinear.of(module, layout))


def name_of(dtype: torch.dtype) -> str:
    """The key in `FORMATS` of the weights that have this dtype and are not quantised."""
    return next(key for key, kind in FORMATS.items() if kind.dtype == dtype and not kind.layout)


def key_of(layouts: Iterable[Layout]) -> str:
    """The key in `FORMATS` of the weights whose matrices have these layouts, most of them one."""
    ((most, _),) = Counter(layouts).most_common(1)
    return next(key for key, kind in FORMATS.items() if kind.layout is most)
