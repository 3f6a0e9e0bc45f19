"""Images and latents as they go from node to node."""

import comfy.model_management
from torch import Tensor


def intermediate(results: Tensor) -> Tensor:
    """Images, masks or latents on the device and in the dtype that ComfyUI keeps them in."""
    management = comfy.model_management
    return results.to(management.intermediate_device(), management.intermediate_dtype())
