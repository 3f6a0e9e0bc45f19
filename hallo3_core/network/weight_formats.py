"""The formats of weights, in files and in memory. A new format is added here."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightFormat:
    """The dtypes of a model's weights.

    `name` is the name in files and options. The matrices of layers have the dtype `matrices`, and
    all other weights have the dtype `others`. The model computes in `others`.
    """

    name: str
    matrices: torch.dtype
    others: torch.dtype

    @property
    def scaled(self) -> bool:
        """Whether a matrix is stored with a scale."""
        return self.matrices != self.others

    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes per number: in the matrices of layers, and elsewhere."""
        return self.matrices.itemsize, self.others.itemsize


FORMATS = {
    "bf16": WeightFormat("bf16", torch.bfloat16, torch.bfloat16),
    "fp16": WeightFormat("fp16", torch.float16, torch.float16),
    "fp8": WeightFormat("fp8_e4m3fn", torch.float8_e4m3fn, torch.bfloat16),
    "fp32": WeightFormat("fp32", torch.float32, torch.float32),
}
"""The formats, by the short names that the memory plan uses."""
BY_NAME = {kind.name: kind for kind in FORMATS.values()}
STORED = ("bf16", "fp16", "fp8_e4m3fn")
"""The names of the formats of large weights. fp32 is only for small networks."""
COMPUTE_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
}


def short_name(dtype: torch.dtype) -> str:
    """The key in `FORMATS` of the format whose matrices have this dtype."""
    return next(name for name, kind in FORMATS.items() if kind.matrices == dtype)


def scale_name(name: str) -> str:
    """The name of the scale beside a weight in ComfyUI's scaled fp8 files."""
    return f"{name}_scale"


def mark_name(name: str) -> str:
    """The name of the tensor beside a scaled weight that names its format to ComfyUI."""
    return f"{name.removesuffix('weight')}comfy_quant"


class ScaledLinear(nn.Linear):
    """A linear layer with an fp8 weight, which is multiplied by `weight_scale` when used."""

    weight_scale: Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool, **factory):
        super().__init__(inputs, outputs, bias, **factory)
        self.register_buffer("weight_scale", torch.ones((), device=self.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float().mul_(self.weight_scale).to(x.dtype)
        return F.linear(x, weight, self.bias)
