"""Weights files: reading them, recognising them, and the names of the published ones."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import InputError
from .layers import ScaledLinear

DENOISER = "model.diffusion_model."
REFERENCE_NETWORK = "ref_model.diffusion_model."
AUDIO_PROJECTOR = DENOISER + "transformer.audio_proj."

ONLY_HALLO3 = (REFERENCE_NETWORK, AUDIO_PROJECTOR)
ROTARY_TABLE = DENOISER + "mixins.pos_embed.freqs_cos"

UNNEEDED = ("mixins.pos_embed.freqs_", "transformer.position_embeddings.")
"""Parts of published names that nothing reads: computed tables, and one of the library below."""

AUDIO_PROJECTOR_NAMES = {
    "linear_1": "proj1",
    "linear_2": "proj2",
    "linear_3": "proj3",
    "downsample": "conv1",
    "norm": "norm",
}

TRANSFORMER_NAMES = {
    "embed.position": "mixins.pos_embed.pos_embedding",
    "embed.patch": "mixins.patch_embed.proj",
    "embed.text": "mixins.patch_embed.text_proj",
    "embed.time_in": "time_embed.0",
    "embed.time_out": "time_embed.2",
    "face_projector.linear": "transformer.face_proj.proj",
    "face_projector.norm": "transformer.face_proj.norm",
    "head.norm_in": "transformer.final_layernorm",
    "head.norm_out": "mixins.final_layer.norm_final",
    "head.modulation": "mixins.final_layer.adaLN_modulation.1",
    "head.linear": "mixins.final_layer.linear",
    "layers.*.modulation": "mixins.adaln_layer.adaLN_modulations.*.1",
    "layers.*.query_norm": "mixins.adaln_layer.query_layernorm_list.*",
    "layers.*.key_norm": "mixins.adaln_layer.key_layernorm_list.*",
    "layers.*.attention_norm": "transformer.layers.*.input_layernorm",
    "layers.*.query_key_value": "transformer.layers.*.attention.query_key_value",
    "layers.*.attention_out": "transformer.layers.*.attention.dense",
    "layers.*.face_norm": "transformer.layers.*.face_input_layernorm",
    "layers.*.face_attention.query": "transformer.layers.*.face_attn.query",
    "layers.*.face_attention.key_value": "transformer.layers.*.face_attn.key_value",
    "layers.*.face_attention.out": "transformer.layers.*.face_attn.dense",
    "layers.*.audio_norm": "transformer.layers.*.audio_input_layernorm",
    "layers.*.audio_attention.query": "transformer.layers.*.audio_attn.query",
    "layers.*.audio_attention.key_value": "transformer.layers.*.audio_attn.key_value",
    "layers.*.audio_attention.out": "transformer.layers.*.audio_attn.dense",
    "layers.*.mlp_norm": "transformer.layers.*.post_attention_layernorm",
    "layers.*.mlp.up": "transformer.layers.*.mlp.dense_h_to_4h",
    "layers.*.mlp.down": "transformer.layers.*.mlp.dense_4h_to_h",
}


def layer_count(names: Iterable[str]) -> int:
    """How many layers the denoiser of a published checkpoint has; at least one."""
    pattern = re.compile(re.escape(DENOISER) + r"transformer\.layers\.(\d+)\.")
    return 1 + max((int(m[1]) for name in names if (m := pattern.match(name))), default=0)


def published_names(names: Iterable[str], prefix: str, table: Mapping[str, str]) -> dict[str, str]:
    """Our name of each parameter to its published name."""
    return {name: prefix + _published(name, table) for name in names}


def _published(name: str, table: Mapping[str, str]) -> str:
    if name in table:
        return table[name]
    module, _, parameter = name.rpartition(".")
    layer = re.match(r"layers\.(\d+)\.", module)
    if layer is None:
        return f"{table[module]}.{parameter}"
    general = table[f"layers.*.{module[layer.end() :]}"]
    return f"{general.replace('*', layer[1])}.{parameter}"


VAE = "the CogVideoX VAE"
SPEECH_ENCODER = "a wav2vec2 speech encoder"
SIGNATURES = {
    REFERENCE_NETWORK: "the Hallo3 transformers",
    "denoising_unet.": "a Hallo or Hallo2 model",
    "reference_unet.": "a Hallo or Hallo2 model",
    "conditioner.embedders.": "a Stable Diffusion XL checkpoint",
    "cond_stage_model.": "a Stable Diffusion 1 or 2 checkpoint",
    "double_blocks.": "a Flux or HunyuanVideo model",
    "blocks.0.cross_attn.": "a Wan video model",
    "transformer_blocks.0.attn1.": "a CogVideoX transformer in diffusers' names",
    "wav2vec2.": SPEECH_ENCODER,
    "feature_extractor.conv_layers.": SPEECH_ENCODER,
    "encoder.block.0.layer.0.SelfAttention.": "a T5 text encoder",
    "decoder.mid.block_1.norm1.conv_y.": VAE,
    "decoder.mid_block.resnets.0.norm1.conv_y.": VAE,
    "decoder.mid": "an image VAE",
    "lora_": "a LoRA",
    "mixins.patch_embed.": "a CogVideoX transformer in the authors' names",
}


def describe(names: Iterable[str]) -> str:
    """What weights of these names look like, for people."""
    names = list(names)
    for part, description in SIGNATURES.items():
        if any(part in name for name in names):
            return description
    examples = ", ".join(names[:3]) or "none"
    return f"something unknown ({len(names)} tensors: {examples})"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or PyTorch file, memory-mapped.

    Raises `InputError` for a file that is missing, cut short or no weights file at all.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}: check the path.")
    start = path.open("rb").read(256)
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise InputError(f"{path} is a web page, not weights: download the file itself again.")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a Git LFS pointer, not weights: fetch it with `git lfs pull`.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        whole = is_zipfile(path)
        if whole:
            _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except Exception as error:  # on garbage the unpickler may raise anything
        if isinstance(error, UnpicklingError) and whole:
            raise InputError(
                f"{path} holds other things than weights, which are not loaded because they "
                "could run programs: get it from the authors, or as safetensors."
            ) from error
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as weights; it is damaged or "
            f"cut short: download it again. ({type(error).__name__})"
        ) from error
    for wrapper in ("module", "state_dict"):
        if isinstance(content, dict) and wrapper in content:
            content = content[wrapper]
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not named weights: choose another file."
        )
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _check_archive(path: Path) -> None:
    """Find every member of a PyTorch file in its place, and its index whole; torch does not."""
    with ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                if name.endswith("data.pkl"):
                    member.read()


def require(names: Iterable[str], weights: Mapping[str, object], source: Path) -> None:
    """Raise `InputError` if any of `names` is not among the weights of `source`."""
    names = list(names)
    missing = [name for name in names if name not in weights]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} of {len(names)} tensors ({_some(missing)}): "
            "it is not whole, download it again."
        )


def require_shapes(
    module: nn.Module, weights: Mapping[str, Tensor], names: Mapping[str, str], source: Path
) -> None:
    """Raise `InputError` unless the weights of `source` are what a module's parameters need.

    `names` maps the module's names to those of `weights`.
    """
    require(names.values(), weights, source)
    wrong = [
        f"{names[ours]} is {tuple(weights[names[ours]].shape)}, not {tuple(value.shape)}"
        for ours, value in module.state_dict().items()
        if weights[names[ours]].shape != value.shape
    ]
    if wrong:
        raise InputError(
            f"{source} has {len(wrong)} tensors of the wrong shape ({_some(wrong)}): "
            "choose a file that belongs to this model."
        )
    integers = [name for name in names.values() if not weights[name].is_floating_point()]
    if integers:
        raise InputError(
            f"{source} has {len(integers)} tensors of whole numbers ({_some(integers)}), which is "
            "a quantisation that is not known here: use bf16, fp16 or fp8."
        )


def load(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    dtype: torch.dtype,
    source: Path,
) -> None:
    """Put weights into a module made on the meta device, as `dtype`, for inference.

    Weights that come with a scale stay in fp8. Raises `InputError` as `require_shapes` does.
    """
    require_shapes(module, weights, names, source)
    state = {}
    for ours, theirs in names.items():
        scale = weights.get(f"{theirs}_scale")
        state[ours] = weights[theirs] if scale is not None else weights[theirs].to(dtype)
        if scale is not None:
            state[f"{ours}_scale"] = scale.float().reshape(())
            name = ours.removesuffix(".weight")
            linear = module.get_submodule(name)
            sizes = (linear.in_features, linear.out_features, linear.bias is not None)
            module.set_submodule(name, ScaledLinear(*sizes, device="meta"))
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")


def load_pretrained(network: type, folder: Path):
    """A network of transformers from a folder as it saves them, whole or not at all.

    Raises `InputError` where transformers would go on with random weights.
    """
    try:
        module, info = network.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises many kinds
        raise InputError(
            f"There is no {network.__name__} in {folder} ({type(error).__name__}): "
            "download the folder whole."
        ) from error
    missing = [name for name in info["missing_keys"] if name != "masked_spec_embed"]
    missing += [str(name) for name in info["mismatched_keys"]]
    if missing:
        raise InputError(
            f"The {network.__name__} in {folder} lacks {len(missing)} tensors ({_some(missing)}): "
            "download the folder whole."
        )
    return module.eval().requires_grad_(False)


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}
