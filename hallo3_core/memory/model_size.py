"""Counts the bytes of a model's weights, on networks without weights (the meta device)."""

from dataclasses import dataclass, replace
from functools import cache

from torch import nn

from ..network.config import Hallo3Config
from ..network.transformer import empty_networks
from ..network.weight_formats import WeightFormat
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
    def of(
        cls, config: Hallo3Config, vae: nn.Module | None, kind: WeightFormat, size: int
    ) -> "Weights":
        """Count the weights. Numbers outside of the matrices of layers take `size` bytes.

        `vae` may be without weights. Without `vae`, its size is 0.
        """
        weights = _transformers(config, kind, size)
        return weights if vae is None else replace(weights, vae=_bytes(vae, kind, size))

    @property
    def total(self) -> float:
        networks = (self.denoiser, self.reference_network, self.audio_projector, self.vae)
        return sum(networks) + self.speech_encoder


@cache
def _transformers(config: Hallo3Config, kind: WeightFormat, size: int) -> Weights:
    """The same without the autoencoder; made once, because making the networks takes seconds."""
    denoiser, reference_network, audio_projector = empty_networks(config)
    return Weights(
        denoiser=_bytes(denoiser, kind, size),
        reference_network=_bytes(reference_network, kind.of_reference, size),
        audio_projector=_bytes(audio_projector, kind, size),
        vae=0,
        denoiser_layer=_layer_bytes(denoiser.layers[0], kind, size),
        reference_layer=_layer_bytes(reference_network.layers[0], kind.of_reference, size),
    )


def _bytes(network: nn.Module, kind: WeightFormat, size: int) -> float:
    state = network.state_dict()
    return sum(kind.bytes_of(name, tuple(value.shape), size) for name, value in state.items())


def _layer_bytes(layer: nn.Module, kind: WeightFormat, size: int) -> Layer:
    """Bytes of the matrices of a layer of a transformer, each with its bias."""
    names = {module: name for name, module in layer.named_modules()}
    sizes = [
        sum(
            kind.bytes_of(f"layers.0.{names[module]}.{name}", tuple(value.shape), size)
            for name, value in tensors_of(module).items()
        )
        for module in matrices(layer)
    ]
    return Layer(sum(sizes), max(sizes))
