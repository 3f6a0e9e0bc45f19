"""Images as ComfyUI keeps them between nodes."""

import comfy.model_management
from torch import Tensor


def kept(images: Tensor) -> Tensor:
    """Images or masks on the device and in the dtype that ComfyUI keeps them in."""
    management = comfy.model_management
    return images.to(management.intermediate_device(), management.intermediate_dtype())
