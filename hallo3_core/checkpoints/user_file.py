"""Load weights that the user provides."""

from pathlib import Path

from torch import nn

from ..errors import InputError
from .reading import read_weights


def fill(network: nn.Module, file: Path, name: str, wanted: str) -> None:
    """Load a weights file into a network, for inference.

    For errors, `name` is the name of the network and `wanted` the file to give. Raises `InputError`
    if the file cannot be read, or if its tensors are not those of the network.
    """
    weights = read_weights(file)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        own = network.state_dict()
        fitting = sum(name in weights and weights[name].shape == own[name].shape for name in own)
        raise InputError(
            f"{file} is not {name} ({fitting} of its {len(own)} tensors are there): give {wanted}."
        ) from error
    network.eval().requires_grad_(False)
