"""The layouts of quantised matrices that ComfyUI knows (`comfy/quant_ops.py`).

comfy-kitchen, the kernel library of ComfyUI, quantises matrices, restores them and multiplies with
them. In a file, a quantised matrix is several tensors: its numbers have the name of the weight, and
each scale has that name and an ending.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

GROUPS = 256, 64, 16
"""Numbers that ConvRot can rotate together, which are powers of 4. 256 is ComfyUI's choice."""
CODEBOOK = 16
"""The length of the table that four bits point into."""
ROWS = 512
"""Rows that are quantised at once. Scales lie in tiles of 128 rows."""
FIRST_CUDA = 13
"""The first version of CUDA with which ComfyUI uses comfy-kitchen's kernels."""


@cache
def kitchen() -> ModuleType:
    """comfy-kitchen, with the kernels that ComfyUI uses. Raises `InputError` if it is missing."""
    try:
        import comfy_kitchen.tensor
    except ImportError as error:
        raise InputError(
            "Quantised weights need the package comfy-kitchen, which is not installed: run `pip "
            "install comfy-kitchen`, or use weights in bf16."
        ) from error
    comfy_kitchen.disable_backend("triton")
    if int((torch.version.cuda or "0").split(".")[0]) < FIRST_CUDA:
        comfy_kitchen.disable_backend("cuda")
    return comfy_kitchen.tensor


def is_quantized(tensor: Tensor) -> bool:
    """Whether a tensor is a QuantizedTensor of comfy-kitchen."""
    return hasattr(tensor, "layout_cls")


def restored(tensor: Tensor) -> Tensor:
    """A tensor without quantisation."""
    return tensor.dequantize() if is_quantized(tensor) else tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """A layout of quantised matrices.

    - `name`: ComfyUI's name, which is in the marks of files.
    - `kind`: the name of its class in comfy-kitchen.
    - `numbers`: the dtype of the numbers in a file. An element has `packed` of them.
    - `scales`: the ending of each scale's name, and the parameter of comfy-kitchen that it is.
    - `optional`: those of these endings that a file can leave out.
    - `options`: the parameters that a mark can have, with the values that we choose.
    - `how`: what else comfy-kitchen is told when it quantises.
    - `split`: large matrices are quantised in parts, because the library takes much memory.
    - `products`: it also multiplies in few bits. Otherwise a matrix is restored for each product.
    """

    name: str
    kind: str
    numbers: torch.dtype
    scales: Mapping[str, str] = field(default_factory=lambda: {"_scale": "scale"})
    optional: tuple[str, ...] = ()
    packed: int = 1
    options: Mapping[str, object] = field(default_factory=dict)
    how: Mapping[str, object] = field(default_factory=dict)
    split: bool = False
    products: bool = False

    def choose(self, inputs: int) -> dict[str, object]:
        """The options for a matrix with this number of inputs."""
        group = next((group for group in GROUPS if inputs % group == 0), GROUPS[0])
        ours = {"convrot_groupsize": group}
        return {name: ours.get(name, value) for name, value in self.options.items()}

    def quantize(self, matrix: Tensor, options: Mapping[str, object]) -> Tensor:
        """Quantise a matrix (outputs, inputs). Raises `ValueError` if its sizes do not fit."""
        known = {**self.how, **options}
        if matrix.is_meta and "_codebook" in self.scales:  # it cannot be fitted without numbers
            known["codebook_tensor"] = torch.empty(CODEBOOK, device="meta")
        quantize = partial(getattr(kitchen(), self.kind).quantize, **known)
        if self.split and len(matrix) > ROWS and not matrix.is_meta:
            return self._quantize_rows(matrix, quantize)
        data, params = quantize(matrix)
        return kitchen().QuantizedTensor(data, self.kind, params)

    def _quantize_rows(self, matrix: Tensor, quantize: Callable) -> Tensor:
        """Quantise some rows after the other, with the same scale, which takes less memory."""
        largest = int(torch.maximum(matrix.amax(1), -matrix.amin(1)).argmax())
        _, params = quantize(matrix[largest : largest + 1])
        pieces = [quantize(rows, scale=params.scale) for rows in matrix.split(ROWS)]
        scales = torch.cat([scales.block_scale for _, scales in pieces])
        whole = replace(params, block_scale=scales, orig_shape=tuple(matrix.shape))
        data = torch.cat([data for data, _ in pieces])
        return kitchen().QuantizedTensor(data, self.kind, whole)

    def parts(self, matrix: Any) -> dict[str, Tensor]:
        """The tensors of a quantised matrix, by the endings of their names. The numbers have ""."""
        params = matrix.params
        scales = {end: getattr(params, name) for end, name in self.scales.items()}
        return {"": matrix._qdata} | {
            end: scale for end, scale in scales.items() if scale is not None
        }

    def join(
        self,
        parts: Mapping[str, Tensor],
        options: Mapping[str, object],
        dtype: torch.dtype,
    ) -> Tensor:
        """The quantised matrix of these parts. It computes in `dtype`."""
        outputs, elements = parts[""].shape
        params = getattr(kitchen(), self.kind).Params(
            **{name: parts.get(end) for end, name in self.scales.items()},
            **options,
            orig_dtype=dtype,
            orig_shape=(outputs, elements * self.packed),
        )
        return kitchen().QuantizedTensor(parts[""], self.kind, params)

    def expected(
        self, shape: tuple[int, ...], options: Mapping[str, object] | None = None
    ) -> dict[str, Tensor] | None:
        """The parts of a matrix of this shape, on the meta device; None if it cannot have them."""
        options = self.choose(shape[1]) if options is None else options
        return _expected(self, tuple(shape), tuple(options.items()))


@cache
def _expected(layout: Layout, shape: tuple, options: tuple) -> dict[str, Tensor] | None:
    try:
        matrix = layout.quantize(torch.empty(shape, device="meta"), dict(options))
    except (ValueError, TypeError, RuntimeError, AssertionError, ZeroDivisionError):
        return None
    parts = layout.parts(matrix)
    outputs, elements = parts[""].shape
    return parts if (outputs, elements * layout.packed) == shape else None  # else it was padded


CONVROT = {"convrot_groupsize": GROUPS[0]}
_FP8 = "TensorCoreFP8Layout"
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "float8_e4m3fn",
            _FP8,
            torch.float8_e4m3fn,
            how={"scale": "recalculate", "dtype": torch.float8_e4m3fn},
        ),
        Layout(
            "float8_e5m2",
            _FP8,
            torch.float8_e5m2,
            how={"scale": "recalculate", "dtype": torch.float8_e5m2},
        ),
        Layout("mxfp8", "TensorCoreMXFP8Layout", torch.float8_e4m3fn),
        Layout(
            "nvfp4",
            "TensorCoreNVFP4Layout",
            torch.uint8,
            scales={"_scale": "block_scale", "_scale_2": "scale"},
            packed=2,
            split=True,
        ),
        Layout(
            "int8_tensorwise",
            "TensorWiseINT8Layout",
            torch.int8,
            options={"convrot": True, **CONVROT},
            how={"per_channel": True},
            products=True,
        ),
        Layout(
            "convrot_w4a4",
            "TensorCoreConvRotW4A4Layout",
            torch.int8,
            packed=2,
            options={**CONVROT, "linear_dtype": "int4"},
            products=True,
        ),
        Layout(
            "asym_w4a8_int8",
            "AsymW4A8Int8Layout",
            torch.int8,
            scales={"_s_rel": "scale", "_s_channel": "s_channel", "_codebook": "codebook"},
            optional=("_codebook",),
            packed=2,
            options={"group_size": 16, **CONVROT},
            products=True,
        ),
    )
}
"""The layouts by ComfyUI's names."""
