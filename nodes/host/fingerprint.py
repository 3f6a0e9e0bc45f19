"""The fingerprint of a MODEL or a VAE: a hash of its weights and of all patches."""

import os
from enum import Enum
from functools import _lru_cache_wrapper, partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from uuid import UUID
from weakref import WeakKeyDictionary

import comfy.model_patcher
import comfy.sd
import comfy_extras
import torch
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ...hallo3_core.store.fingerprint import Unknown, fingerprint, weights_fingerprint
from .model import HostConfig

PACK = __name__.removesuffix(".nodes.host.fingerprint")
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "nodes"}
EXTRAS = str(Path(comfy_extras.__path__[0])) + os.sep
"""The folder of ComfyUI's extra nodes. ComfyUI names their modules by their files."""

_seen: WeakKeyDictionary[FunctionType, str] = WeakKeyDictionary()

PATCHED = (
    "patches",
    "object_patches",
    "weight_wrapper_patches",
    "additional_models",
    "callbacks",
    "injections",
    "hook_patches",
    "forced_hooks",
    "attachments",
    "force_cast_weights",
)
"""The attributes of a ModelPatcher that change what its model computes."""


def model_parts(patcher: comfy.model_patcher.ModelPatcher) -> tuple:
    """Everything that decides what a Hallo3 MODEL computes, for `fingerprint` with `parts_of`."""
    model = patcher.model
    own = {id(model): "model", id(model.diffusion_model): "denoiser"}
    patches = [getattr(patcher, name) for name in PATCHED]
    wrappers = [without_compiling(wrappers) for wrappers in patcher.wrappers.values()]
    where = (
        torch.__version__,
        patcher.load_device.type,
        model.get_dtype(),
        model.manual_cast_dtype,
    )
    weights = model.model_config.weights_fingerprint()
    return where, weights, replace_own((patches, wrappers, patcher.model_options), own)


def vae_parts(vae: comfy.sd.VAE) -> tuple:
    """Everything that decides what a VAE computes."""
    weights = weights_fingerprint(vae.first_stage_model.state_dict())
    return type(vae).__name__, vae.device.type, vae.vae_dtype, weights, vae.patcher.patches


def without_compiling(wrappers: dict[str, list]) -> dict[str, list]:
    """The wrappers without torch.compile, which makes a model faster and changes no result."""
    return {key: value for key, value in wrappers.items() if key != COMPILE_KEY}


def replace_own(value: object, own: dict[int, str]) -> object:
    """Nested lists and dicts, with the methods of the model replaced by their names."""
    match value:
        case dict():
            return {key: replace_own(part, own) for key, part in value.items()}
        case list() | tuple():
            return [replace_own(part, own) for part in value]
        case MethodType() if id(value.__self__) in own:
            return own[id(value.__self__)], value.__name__
    return value


def parts_of(value: object) -> object:
    """The parts of an object that a fingerprint is made of.

    Raises `Unknown` if the object is neither ComfyUI's nor ours.
    """
    match value:
        case UUID() | Enum():
            return str(value)
        case partial():
            return value.func, value.args, value.keywords
        case MethodType():
            return value.__func__, value.__self__
        case _lru_cache_wrapper():
            return value.__wrapped__
        case HostConfig():
            return value.config, value.weights_fingerprint()  # wherever the file is
    kind = value if isinstance(value, type | FunctionType | BuiltinFunctionType) else type(value)
    name = f"{Path(kind.__module__).name}.{kind.__qualname__}"
    if not is_known(kind.__module__):
        raise Unknown(name)
    if isinstance(value, FunctionType):
        return function_parts(value, name)
    return name, () if value is kind else vars(value)


def function_parts(function: FunctionType, name: str) -> str:
    """The fingerprint of a function, from the first time that it was seen.

    It is not made again: some functions store results in their closures from step to step.
    """
    if function not in _seen:
        _seen[function] = name  # for a function whose closure contains itself
        held = [cell.cell_contents for cell in function.__closure__ or ()]
        parts = function.__code__.co_code, function.__defaults__, function.__kwdefaults__, held
        _seen[function] = fingerprint((name, *parts), parts_of)
    return _seen[function]


def is_known(module: str) -> bool:
    """Whether a module is ComfyUI's or ours: their functions depend only on what they contain.

    Functions of other packs may depend on anything, so a fingerprint cannot say what they do.
    """
    return module.partition(".")[0] in HOST or module.startswith((EXTRAS, PACK))
