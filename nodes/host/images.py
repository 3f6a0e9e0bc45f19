"""Images as the host keeps them between nodes."""

import comfy.model_management
from torch import Tensor


def kept(images: Tensor) -> Tensor:
    """Where the host keeps images and masks, and in its dtype."""
    management = comfy.model_management
    return images.to(management.intermediate_device(), management.intermediate_dtype())
