"""A linear layer with a quantised weight."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layouts import Layout


class QuantizedLinear(nn.Linear):
    """A linear layer whose weight is in a `layout`. It computes in the dtype of its input.

    The numbers and scales are buffers with the names that they have in files, so that they can be
    moved and streamed like other tensors. `options` are those of the weight's mark. If there is a
    `pre_quant_scale` (inputs,), the input is multiplied by it first.
    """

    bias: nn.Parameter | None  # type: ignore[assignment]  # as nn.Linear has it in fact
    pre_quant_scale: Tensor | None

    def __init__(
        self,
        layout: Layout,
        options: Mapping[str, object],
        weight: Tensor,
        bias: nn.Parameter | None,
        pre_quant_scale: Tensor | None = None,
    ):
        nn.Module.__init__(self)
        self.layout, self.options = layout, dict(options)
        self.out_features, self.in_features = weight.shape
        self.keep(weight)
        self.bias = bias
        self.register_buffer("pre_quant_scale", pre_quant_scale)

    @classmethod
    def of(cls, linear: nn.Linear, layout: Layout) -> "QuantizedLinear":
        """A linear layer with its weight quantised."""
        options = layout.choose(linear.in_features)
        weight = layout.quantize(linear.weight.detach(), options)
        return cls(layout, options, weight, linear.bias)

    def keep(self, weight: Tensor) -> None:
        """Set the quantised weight."""
        for end, part in self.layout.parts(weight).items():
            self.register_buffer(f"weight{end}", part)

    def quantized(self, dtype: torch.dtype) -> Tensor:
        """The quantised weight, which computes in `dtype`."""
        ends = ("", *self.layout.scales)
        parts = {
            end: getattr(self, f"weight{end}") for end in ends if hasattr(self, f"weight{end}")
        }
        return self.layout.join(parts, self.options, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.pre_quant_scale is not None:
            x = x * self.pre_quant_scale.to(x)
        weight = self.quantized(x.dtype)
        if x.requires_grad or not self.layout.products:  # kernels of few bits have no gradient
            weight = weight.dequantize()
        return F.linear(x, weight, self.bias)

    @torch.no_grad()
    def add(self, change: Tensor) -> None:
        """Add to the weight (outputs, inputs), and quantise it again."""
        weight = self.quantized(torch.float32).dequantize() + change
        self.keep(self.layout.quantize(weight, self.options))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        """Move all tensors, but let no numbers and scales become another dtype."""
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = getattr(self, name)
            if new.dtype != old.dtype:
                setattr(self, name, old.to(new.device))
        return self
