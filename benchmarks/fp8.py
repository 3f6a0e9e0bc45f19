"""The linear layers of a network in fp8."""

import torch
from torch import Tensor, nn

from hallo3_core.quantization.layouts import LAYOUTS
from hallo3_core.quantization.linear import QuantizedLinear

LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max


def store_in_fp8(network: nn.Module) -> None:
    """Store the weights of all linear layers in fp8, scaled as by `convert`."""
    for name, module in linears(network):
        network.set_submodule(name, QuantizedLinear.of(module, LAYOUTS["float8_e4m3fn"]))


def multiply_in_fp8(network: nn.Module) -> None:
    """Make all linear layers multiply in fp8."""
    for name, module in linears(network):
        network.set_submodule(name, Fp8Product(module))


def linears(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(n, module) for n, module in network.named_modules() if isinstance(module, nn.Linear)]


def in_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor in fp8, divided by its scale, and the scale."""
    scale = x.abs().max().float() / LARGEST_FP8
    return (x / scale).to(torch.float8_e4m3fn), scale


class Fp8Product(nn.Module):
    """A linear layer that multiplies in fp8."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight, scale = in_fp8(linear.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = in_fp8(x.flatten(0, -2))
        factors = (rows, self.weight.t(), scale, self.scale)
        product = torch._scaled_mm(*factors, bias=self.bias, out_dtype=x.dtype)
        return product.unflatten(0, x.shape[:-1])
