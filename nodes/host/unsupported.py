"""Refuses what stock nodes put into a MODEL and Hallo3 cannot use. Each gets one sentence.

ComfyUI's nodes do not check whether a model uses their patches. A patch that is not known here is
refused too: otherwise it would change nothing, and the user would not know.
"""

from collections.abc import Iterable

import comfy.model_sampling
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_wrappers_with_key
from torch import Tensor

from ...hallo3_core.errors import InputError
from ...hallo3_core.network.config import LATENT_FRAMES
from .out_of_memory import enough_memory
from .patches import BLOCK, MIDDLE, OUTPUT, PASS_THROUGH

PATCHES = {
    "attn1_patch": "HyperTile or TomePatchModel",
    "input_block_patch": "PatchModelAddDownscale",
    "input_block_patch_after_skip": "PatchModelAddDownscale",
}
"""Patches of self-attention and of blocks, and the nodes that set them."""

OPTIONS = {
    "rope_options": "ScaleROPE",
    "a2v_cross_attn": "LTXVModalityGuidance",
    "chroma_radiance_options": "ChromaRadianceOptions",
    "animate2_cache": "WanAnimate2Cache",
}

FRAMES_IN_BATCH = "treats the videos of a batch as frames, and turns guidance off for a single one"
FUNCTIONS = {
    "EpsilonScaling": "adds a part of sigma as noise, and sigma is up to 4518 in this model",
    "VideoLinearCFGGuidance": FRAMES_IN_BATCH,
    "VideoTriangleCFGGuidance": FRAMES_IN_BATCH,
}
"""Nodes whose guidance function does not fit this model, and why."""

CONDITIONING = {
    "control": "a ControlNet",
    "gligen": "GLIGEN",
    "area": "an area",
    "concat_latent_image": "a picture to inpaint",
    "reference_latents": "reference latents",
    "unclip_conditioning": "a picture for unCLIP",
    "guidance": "a guidance of its own",
}


def check_run(executor: WrapperExecutor, noise: Tensor, *args, **kwargs) -> Tensor:
    """Run the sampler, if the MODEL and the latent fit and there is enough memory."""
    guider = executor.class_obj
    require_known_model(guider.model_patcher, guider.model_options)
    config = guider.model_patcher.model.diffusion_model.config
    size = [config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width]
    if list(noise.shape[1:]) != size:
        found, right = (" x ".join(map(str, shape)) for shape in (noise.shape[1:], size))
        raise InputError(
            f"The latent has the shape {found}, but a segment of this model has {right}: connect "
            "the latent of Segment Conditioning."
        )
    with enough_memory("sample a segment"):
        return executor(noise, *args, **kwargs)


def require_known_model(patcher: ModelPatcher, options: dict) -> None:
    """Raise `InputError` if a node has changed the MODEL in a way that does not fit Hallo3."""
    if "context_handler" in options:
        raise InputError(
            "Hallo3 makes long videos segment by segment, and cannot use context windows: remove "
            "the node that sets them."
        )
    if get_wrappers_with_key(WrappersMP.PREDICT_NOISE, "lazycache", options, True):
        raise InputError(
            "LazyCache destroys the picture of this model, which starts at a sigma of 4518: use "
            "EasyCache."
        )
    after = [*options.get("sampler_post_cfg_function", []), options.get("sampler_cfg_function")]
    for function in after:
        node = getattr(function, "__qualname__", "").split(".")[0]
        if node in FUNCTIONS:
            raise InputError(f"{node} {FUNCTIONS[node]}: remove it.")
    sampling = patcher.get_model_object("model_sampling")
    own = comfy.model_sampling.ModelSamplingDiscrete(patcher.model.model_config).sigmas
    same = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
    if not same or sampling.sigmas.tolist() != own.tolist():
        raise InputError(
            "Hallo3 works only with the noise schedule that it was trained with, and a node has "
            "changed it: remove the ModelSampling node."
        )


def require_known_conditioning(conditioning: dict) -> None:
    """Raise `InputError` if a conditioning contains something that the denoiser does not use."""
    for key, what in CONDITIONING.items():
        if conditioning.get(key) is not None:
            raise InputError(
                f"The conditioning has {what}, which Hallo3 cannot use: remove that node."
            )


def require_known_patches(options: dict, layers: int) -> None:
    """Raise `InputError` if our layers have no place for a patch in the options of a call."""
    strange = {kind for kind, found in options.get("patches", {}).items() if found} - {OUTPUT}
    replaced = options.get("patches_replace", {})
    places = {(kind, place) for kind in replaced.keys() - {"dit"} for place in replaced[kind]}
    strange |= {f"{kind} {place}" for kind, place in places - {("attn1", MIDDLE)}}
    strange |= OPTIONS.keys() & options
    for patch in sorted(strange):
        node = (PATCHES | OPTIONS).get(patch)
        setter = f"the node that sets it, such as {node}" if node else "the node that sets it"
        raise InputError(
            f"This MODEL has the patch {patch}, which Hallo3 cannot use: remove {setter}."
        )
    if "dit" in replaced:
        require_layers([i for kind, i in replaced["dit"] if kind == BLOCK], layers)
    if PASS_THROUGH in options:
        require_layers(options[PASS_THROUGH], layers)


def require_layers(chosen: Iterable[int], layers: int) -> None:
    """Raise `InputError` if a node names none of our layers, or one that does not exist."""
    if not chosen or max(chosen) >= layers:
        named = f"layers {', '.join(map(str, sorted(chosen)))}" if chosen else "no layers"
        raise InputError(
            f"A guidance node changes {named}, but this model has the layers 0 to {layers - 1}: "
            "choose some of them in that node (its layers, double_layers or blocks)."
        )
