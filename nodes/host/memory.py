"""The memory plan of a loaded model, on the device that ComfyUI uses."""

import comfy.model_management
import comfy.model_patcher
import comfy.sd

from ...hallo3_core.errors import InputError
from ...hallo3_core.memory.plan import GB, MemoryPlan, plan_memory
from ...hallo3_core.network.weight_formats import key_of
from ...hallo3_core.quantization.layouts import LAYOUTS
from .vae import Autoencoder

MB = 2**20
BY_SIZE = {4: "fp32", 2: "bf16", 1: "fp8"}
"""The plan's names of weights that are not quantised, by bytes per number."""


def plan(
    model: comfy.model_patcher.ModelPatcher, autoencoder: comfy.sd.VAE | None = None
) -> MemoryPlan:
    """How a Hallo3 MODEL fits into the memory of its device, with its VAE if that is given.

    ComfyUI itself decides where the weights are. The plan only checks that it is possible: raises
    `InputError` if the model does not fit.
    """
    host_model = model.model
    management = comfy.model_management
    module = getattr(autoencoder, "first_stage_model", None)
    network = module.vae if isinstance(module, Autoencoder) else None
    names = (getattr(module, "quant_format", None) for module in host_model.modules())
    if layouts := [LAYOUTS[name] for name in names if name]:
        kind = key_of(layouts)
    else:
        kept = management.dtype_size(host_model.get_dtype())
        kind = BY_SIZE.get(kept, "fp32")  # --fp64-unet has no kind of its own
    total = management.get_total_memory(model.load_device) - management.extra_reserved_memory()
    size = management.dtype_size(host_model.get_dtype_inference())
    config = host_model.diffusion_model.config
    return plan_memory(config, network, kind, total, size=size, listening=False)


def fit_in_words(model: comfy.model_patcher.ModelPatcher) -> str:
    """What of a Hallo3 MODEL will be on its device, or why it does not fit."""
    try:
        made = plan(model)
    except InputError as error:
        return str(error)
    total = comfy.model_management.get_total_memory(model.load_device)
    return f"{made.most / GB:.1f} of {total / GB:.0f} GB: {made.where}"


def weights_in_words(network: comfy.model_patcher.ModelPatcher) -> str:
    """How large the weights of a network are, and their number format."""
    dtype = f"{next(network.model.parameters()).dtype}".removeprefix("torch.")
    return f"{network.model_size() / MB:.0f} MB in {dtype}"
