"""Networks whose weights the user brings."""

from pathlib import Path

import torch
from torch import nn

from ..errors import InputError


def fill(network: nn.Module, file: Path, name: str, wanted: str) -> None:
    """Load a file that torch saved into the network called `name`, and make it one to ask.

    Raises `InputError`, which says to give `wanted`, if a tensor is missing or of another shape.
    """
    try:
        network.load_state_dict(torch.load(file, "cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds
        raise InputError(
            f"{file} is not {name} ({type(error).__name__}): give {wanted}."
        ) from error
    network.eval().requires_grad_(False)
