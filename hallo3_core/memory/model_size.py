"""Counts the bytes of a model's weights, on networks without weights (the meta device)."""

import re
from dataclasses import dataclass, replace
from functools import cache

from torch import nn

from ..network.config import Hallo3Config
from ..network.transformer import empty_networks
from .streaming import matrices, tensors_of

SPEECH_ENCODER_BYTES = 94_371_712 * 4


@dataclass(frozen=True)
class Layer:
    """The size of a transformer layer: bytes of all its matrices, and of the largest one."""

    matrices: float
    largest: float


@dataclass(frozen=True)
class Weights:
    """The size of a model's weights: bytes of each network, and of one layer per transformer."""

    denoiser: float
    reference_network: float
    audio_projector: float
    vae: float
    denoiser_layer: Layer
    reference_layer: Layer
    speech_encoder: float = SPEECH_ENCODER_BYTES

    @classmethod
    def of(cls, config: Hallo3Config, vae: nn.Module | None, matrix: int, other: int) -> "Weights":
        """Count the weights. Numbers in the matrices of layers take `matrix` bytes, others `other`.

        `vae` may be without weights. Without `vae`, its size is 0.
        """
        weights = _transformers(config, matrix, other)
        return weights if vae is None else replace(weights, vae=_bytes(vae, matrix, other))

    @property
    def total(self) -> float:
        networks = (self.denoiser, self.reference_network, self.audio_projector, self.vae)
        return sum(networks) + self.speech_encoder


@cache
def _transformers(config: Hallo3Config, matrix: int, other: int) -> Weights:
    """The same without the autoencoder; made once, because making the networks takes seconds."""
    denoiser, reference_network, audio_projector = empty_networks(config)
    return Weights(
        denoiser=_bytes(denoiser, matrix, other),
        reference_network=_bytes(reference_network, matrix, other),
        audio_projector=_bytes(audio_projector, matrix, other),
        vae=0,
        denoiser_layer=_layer_bytes(denoiser.layers[0], matrix, other),
        reference_layer=_layer_bytes(reference_network.layers[0], matrix, other),
    )


def _bytes(network: nn.Module, matrix: int, other: int) -> float:
    """Bytes of a network. Numbers in its layers' matrices take `matrix` bytes, others `other`."""
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
