"""Networks whose weights the user brings."""

from pathlib import Path

from torch import nn

from ..errors import InputError
from .reading import read_weights


def fill(network: nn.Module, file: Path, name: str, wanted: str) -> None:
    """Load a file that torch saved into the network called `name`, and make it one to ask.

    Raises `InputError`, which says to give `wanted`, if a tensor is missing or of another shape.
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
