"""LoRAs: low-rank additions to the denoiser's matrices, as ComfyUI's LoraLoaderModelOnly adds them.

A file has two matrices for each layer that it changes: `diffusion_model.LAYER.lora_A.weight`
(rank, inputs) and `lora_B` (outputs, rank). They can also be called `lora_down` and `lora_up`.
The product lora_B @ lora_A is added to the layer's weight. If the file has an `alpha` for the
layer, the product is multiplied by alpha / rank first.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints.reading import read_weights
from ..checkpoints.recognise import describe
from ..checkpoints.weights_file import read_metadata
from ..errors import InputError
from ..network.transformer import Denoiser
from ..quantization.linear import QuantizedLinear

STEPS_KEY = "hallo3_steps"
"""The metadata key of a distilled LoRA for the number of steps that it was trained for."""
PREFIX = "diffusion_model."
PAIRS = (("lora_A", "lora_B"), ("lora_down", "lora_up"))


@torch.no_grad()
def add_lora(denoiser: Denoiser, file: Path, strength: float = 1.0) -> None:
    """Add a LoRA, multiplied by `strength`, to the weights of a denoiser, in place.

    Quantised weights are quantised again. Raises `InputError` if the file is not a LoRA for this
    denoiser.
    """
    weights = read_weights(file)
    layers = dict(denoiser.named_modules())
    places = {name.removeprefix(PREFIX).rsplit(".", 2)[0] for name in weights if "lora_" in name}
    fitting = [place for place in places if isinstance(layers.get(place), nn.Linear)]
    if not places or len(fitting) < len(places):
        raise InputError(
            f"{file} is {describe(weights)}, which does not fit Hallo3's denoiser: give a LoRA "
            "that was trained for Hallo3."
        )
    for place in fitting:
        layer = layers[place]
        change = strength * _addition(weights, place, file)
        shape = layer.out_features, layer.in_features
        if change.shape != shape:
            raise InputError(
                f"{file} changes {place} in shape {tuple(change.shape)}, but its weight has shape "
                f"{shape}: give a LoRA for a model of this size."
            )
        if isinstance(layer, QuantizedLinear):
            layer.add(change)
            continue
        layer.weight = nn.Parameter((layer.weight + change).to(layer.weight), requires_grad=False)


def _addition(weights: dict[str, Tensor], place: str, file: Path) -> Tensor:
    """The change of one weight at strength 1, (outputs, inputs) float32."""
    for names in PAIRS:
        down, up = (weights.get(f"{PREFIX}{place}.{name}.weight") for name in names)
        if down is not None and up is not None:
            alpha = weights.get(f"{PREFIX}{place}.alpha")
            scale = 1 if alpha is None else alpha.item() / len(down)
            return scale * (up.float() @ down.float())
    raise InputError(f"{file} lacks one of the two matrices for {place}: download it again.")


def steps_of(file: Path) -> int | None:
    """The number of steps that a LoRA was distilled for; None if it was not distilled."""
    steps = read_metadata(file).get(STEPS_KEY, "")
    return int(steps) if steps.isdecimal() else None
