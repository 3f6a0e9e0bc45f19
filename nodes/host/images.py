"""Images as they go from node to node."""

import comfy.model_management
from torch import Tensor


def intermediate(images: Tensor) -> Tensor:
    """Images or masks on the device and in the dtype that ComfyUI keeps them in."""
    management = comfy.model_management
    return images.to(management.intermediate_device(), management.intermediate_dtype())
