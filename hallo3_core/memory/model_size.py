"""Bytes of a model's weights, counted on networks without any."""

import re
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from ..network.conditioning import AudioProjector
from ..network.config import Hallo3Config
from ..network.transformer import Denoiser, ReferenceNetwork
from .streaming import matrices, tensors_of

SPEECH_ENCODER_BYTES = 94_371_712 * 4
WEIGHTS = {"bf16": (2, 2), "fp16": (2, 2), "fp8": (1, 2), "fp32": (4, 4)}
"""Bytes of each number in the matrices of layers, and of any other."""


@dataclass(frozen=True)
class Layer:
    """Bytes of the matrices of a layer, and of the largest of them."""

    matrices: float
    largest: float


@dataclass(frozen=True)
class Weights:
    """Bytes of the weights of a model, by network, and of one layer of each transformer."""

    denoiser: float
    reference_network: float
    audio_projector: float
    vae: float
    denoiser_layer: Layer
    reference_layer: Layer
    speech_encoder: float = SPEECH_ENCODER_BYTES

    @classmethod
    def of(cls, config: Hallo3Config, vae: nn.Module | None, matrix: int, other: int) -> "Weights":
        """With `matrix` bytes for each number in the matrices of layers, and `other` elsewhere."""
        *networks, denoiser_layer, reference_layer = _network_bytes(config, matrix, other)
        autoencoder = 0 if vae is None else _bytes(vae, matrix, other)
        return cls(*networks, autoencoder, denoiser_layer, reference_layer)

    @property
    def total(self) -> float:
        networks = (self.denoiser, self.reference_network, self.audio_projector, self.vae)
        return sum(networks) + self.speech_encoder


@cache
def _network_bytes(config: Hallo3Config, matrix: int, other: int) -> tuple[float | Layer, ...]:
    with torch.device("meta"):
        networks = Denoiser(config), ReferenceNetwork(config), AudioProjector(config)
    layers = (_layer_bytes(network.layers[0], matrix, other) for network in networks[:2])
    return *(_bytes(network, matrix, other) for network in networks), *layers


def _bytes(network: nn.Module, matrix: int, other: int) -> float:
    """Bytes of a network with `matrix` for each number in its layers' matrices."""
    total = 0
    for name, value in network.state_dict().items():
        in_layer = value.ndim == 2 and re.search(r"(^|layers\.)\d+\.", name)
        total += value.numel() * (matrix if in_layer else other)
    return total


def _layer_bytes(layer: nn.Module, matrix: int, other: int) -> Layer:
    sizes = [
        sum(
            value.numel() * (matrix if value.ndim == 2 else other)
            for value in tensors_of(module).values()
        )
        for module in matrices(layer)
    ]
    return Layer(sum(sizes), max(sizes))
