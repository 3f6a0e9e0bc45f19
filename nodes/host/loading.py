"""Loads the networks of a Hallo3 file into ComfyUI's patchers. Each can be loaded again.

ComfyUI loads a MODEL again for another card, and for nodes that need all weights at once
(torch.compile, scheduled LoRA). It then calls the patcher's `cached_patcher_init`.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.model_management import get_torch_device, unet_offload_device
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ...hallo3_core import builtin
from ...hallo3_core.model.layout import NETWORKS
from ...hallo3_core.model.loading import open_transformers
from ...hallo3_core.network.config import Hallo3Config
from ...hallo3_core.quantization.layouts import is_quantized
from ...hallo3_core.quantization.stored import beside
from ...hallo3_core.store.fingerprint import fingerprint, weights_fingerprint
from .model import Companions, HostConfig
from .unsupported import check_run

DTYPES = {
    "default": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}
"""What the weights of a file that is not quantised can become in memory."""

UNDISTILLED = builtin.WEIGHTS / builtin.TRANSFORMER_FILE
TWO_PEOPLE = builtin.WEIGHTS / builtin.TWO_PEOPLE_FILE
DISTILLED = None, TWO_PEOPLE
BUILT_IN = *DISTILLED, UNDISTILLED
"""Which `file` of a `HostConfig` is a distilled built-in model, and which is a built-in one.

None is the distilled one for one person.
"""


def load_dit(file: Path | None, weight_dtype: torch.dtype | None):
    """The MODEL and its companions, from a checkpoint, or from the built-in model if None."""
    config, states = read_networks(file)
    host_config = HostConfig(config, file)
    host_config.quant_config = comfy.utils.detect_layer_quantization(states[0], "")
    dtype, manual_cast = choose_dtypes(states[0], weight_dtype, host_config)
    host_config.set_inference_dtype(dtype, manual_cast)
    host_config.weights_fingerprint = cache(
        lambda: fingerprint(list(map(weights_fingerprint, states)))
    )
    host_config.companions = Companions(
        *(load_companion(host_config, i, states=states) for i in range(1, len(NETWORKS)))
    )
    return load_denoiser(host_config, states=states), host_config.companions


def read_networks(file: Path | None) -> tuple[Hallo3Config, list[dict[str, Tensor]]]:
    """The sizes of the model, and the weights of each of `NETWORKS` under our names."""
    if file in DISTILLED:
        model = builtin.load(people=1 if file is None else 2)
        networks = (model.denoiser, model.reference_network, model.audio_projector)
        return model.config, [network.state_dict() for network in networks]
    weights, config, layouts = open_transformers(file)
    return config, [rename(weights, layout) for layout in layouts]


def load_denoiser(
    host_config: HostConfig, *, states: list[dict] | None = None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The MODEL, from `states` or else from its file. Its companions are in `host_config`."""
    state = (states or read_networks(host_config.file)[1])[0]
    model = host_config.get_model()
    patcher = patcher_class(disable_dynamic)(model, get_torch_device(), unet_offload_device())
    model.load_model_weights(dict(state), assign=patcher.is_dynamic())
    patcher.add_callback(CallbacksMP.ON_PRE_RUN, forget)
    patcher.add_callback(CallbacksMP.ON_CLEANUP, forget)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "hallo3", check_run)
    patcher.cached_patcher_init = (load_denoiser, (host_config,))
    return patcher


def forget(patcher: comfy.model_patcher.ModelPatcher) -> None:
    """Delete what the denoiser of a patcher, or of its clone, has kept during a run."""
    patcher.model.diffusion_model.forget()


def load_companion(
    host_config: HostConfig,
    index: int,
    *,
    states: list[dict] | None = None,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """The network of `NETWORKS` with this index, from `states` or else from the file."""
    state = (states or read_networks(host_config.file)[1])[index]
    dtype, manual_cast = host_config.unet_config["dtype"], host_config.manual_cast_dtype
    operations = comfy.ops.pick_operations(
        dtype, manual_cast, load_device=get_torch_device(), model_config=host_config
    )
    network: Callable[..., Any] = NETWORKS[index][0]
    config = host_config.unet_config["config"]
    module = network(config, operations, dtype=dtype, device=unet_offload_device())
    module.compute_dtype = manual_cast or dtype
    module.built_in = host_config.file in BUILT_IN
    patcher = patcher_class(disable_dynamic)(
        module.eval().requires_grad_(False), get_torch_device(), unet_offload_device()
    )
    module.load_state_dict(state, assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_companion, (host_config, index))
    return patcher


def patcher_class(disable_dynamic: bool) -> type[comfy.model_patcher.ModelPatcher]:
    patchers = comfy.model_patcher
    return patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher


def rename(weights: Mapping[str, Tensor], layout: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights under our names. A quantised matrix is in the parts that ComfyUI's layers read."""
    state = {}
    for ours, theirs in layout.items():
        weight: Any = weights[theirs]
        if not is_quantized(weight):
            state[ours] = weight
            continue
        state |= weight.state_dict(ours)
        pairs = zip(beside(ours), beside(theirs), strict=True)
        state |= {own: weights[name] for own, name in pairs if name in weights}
    return state


def choose_dtypes(
    state: Mapping[str, Tensor], weight_dtype: torch.dtype | None, host_config: HostConfig
) -> tuple[torch.dtype, torch.dtype | None]:
    """The dtype of the weights in memory, and the dtype to compute in, or None for the same.

    Quantised weights stay as they are; the choice is for the other weights.
    """
    management, supported = comfy.model_management, HostConfig.supported_inference_dtypes
    scaled = host_config.quant_config is not None
    dtype = None if scaled else weight_dtype
    dtype = dtype or management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=supported,
        weight_dtype=None if scaled else comfy.utils.weight_dtype(state),
    )
    cast = management.unet_manual_cast(None if scaled else dtype, get_torch_device(), supported)
    return dtype, cast
