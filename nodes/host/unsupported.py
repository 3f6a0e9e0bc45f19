"""What stock nodes hand to a MODEL and Hallo3 has no place for, each with one sentence.

ComfyUI's nodes set their patches without asking whether the model looks at them. A patch of a kind
that is not known here is refused, too: it would change nothing and nobody would be told.
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
"""Kinds of patches of self-attention and blocks, and nodes that set them."""

OPTIONS = {
    "rope_options": "ScaleROPE",
    "a2v_cross_attn": "LTXVModalityGuidance",
    "chroma_radiance_options": "ChromaRadianceOptions",
    "animate2_cache": "WanAnimate2Cache",
}

FRAMES_IN_BATCH = "takes the videos of a batch for frames, and leaves guidance out for the only one"
FUNCTIONS = {
    "EpsilonScaling": "adds a share of sigma as noise, and sigma is up to 4518 in this model",
    "VideoLinearCFGGuidance": FRAMES_IN_BATCH,
    "VideoTriangleCFGGuidance": FRAMES_IN_BATCH,
}
"""Classes of nodes whose function for guidance does not fit this model, and why."""

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
    """A run of the sampler, if MODEL and latent are fit for it and there is the memory."""
    guider = executor.class_obj
    require_known_model(guider.model_patcher, guider.model_options)
    config = guider.model_patcher.model.diffusion_model.config
    size = [config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width]
    if list(noise.shape[1:]) != size:
        found, right = (" x ".join(map(str, shape)) for shape in (noise.shape[1:], size))
        raise InputError(
            f"The latent is {found}, and a segment of this model {right}: connect the latent of "
            "Hallo3 Segment Conditioning."
        )
    with enough_memory("sample a segment"):
        return executor(noise, *args, **kwargs)


def require_known_model(patcher: ModelPatcher, options: dict) -> None:
    """Raises `InputError` if a node has changed a MODEL in a way that does not fit Hallo3."""
    if "context_handler" in options:
        raise InputError(
            "Context windows are for longer latents, and a segment always has 13 frames: remove "
            "the node, as Hallo3 makes long videos segment by segment."
        )
    if get_wrappers_with_key(WrappersMP.PREDICT_NOISE, "lazycache", options, True):
        raise InputError(
            "LazyCache ruins the picture of models whose sigma is as large as 4518: use EasyCache."
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
            "A node has changed what the model's prediction means or its sigmas, and Hallo3 was "
            "trained for v-prediction with zero terminal SNR: remove the ModelSampling node."
        )


def require_known_conditioning(conditioning: dict) -> None:
    """Raises `InputError` if a conditioning carries what the denoiser would not look at."""
    for key, what in CONDITIONING.items():
        if conditioning.get(key) is not None:
            raise InputError(
                f"The conditioning carries {what}, which Hallo3 cannot follow: remove that node."
            )


def require_known_patches(options: dict, layers: int) -> None:
    """Raises `InputError` if a patch in the options of a call has no place in our layers."""
    strange = {kind for kind, found in options.get("patches", {}).items() if found} - {OUTPUT}
    replaced = options.get("patches_replace", {})
    places = {(kind, place) for kind in replaced.keys() - {"dit"} for place in replaced[kind]}
    strange |= {f"{kind} {place}" for kind, place in places - {("attn1", MIDDLE)}}
    strange |= OPTIONS.keys() & options
    for patch in sorted(strange):
        node = (PATCHES | OPTIONS).get(patch)
        setter = f"the node that sets it, such as {node}" if node else "the node that sets it"
        raise InputError(
            f"This MODEL carries the patch {patch}, for which Hallo3 has no place: remove {setter}."
        )
    if "dit" in replaced:
        require_layers([i for kind, i in replaced["dit"] if kind == BLOCK], layers)
    if PASS_THROUGH in options:
        require_layers(options[PASS_THROUGH], layers)


def require_layers(chosen: Iterable[int], layers: int) -> None:
    """Raises `InputError` if a node changes none of our layers, or one that is not there."""
    if not chosen or max(chosen) >= layers:
        named = f"layers {', '.join(map(str, sorted(chosen)))}" if chosen else "none"
        raise InputError(
            f"A guidance node changes {named} and this model has the layers 0 to {layers - 1}: "
            "name some of them as its layers, double_layers or blocks."
        )
