"""Weights files: reading them, recognising them, and the names of the published ones."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import InputError
from .file_kind import SAFETENSORS, ZIP, read_kind
from .layers import ScaledLinear

DENOISER = "model.diffusion_model."
REFERENCE_NETWORK = "ref_model.diffusion_model."
AUDIO_PROJECTOR = DENOISER + "transformer.audio_proj."

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


TRANSFORMERS = "the Hallo3 transformers"
VAE = "the CogVideoX VAE"
SPEECH_ENCODER = "a wav2vec2 speech encoder"
TEXT_ENCODER = "a T5 text encoder"
LORA, CONTROLNET = "a LoRA", "a ControlNet"
SD3 = "a Stable Diffusion 3 model"
ADDITIONS = {
    "lora_": LORA,
    ".lora.": LORA,
    ".lokr_w": LORA,
    ".hada_w": LORA,
    "control_model.": CONTROLNET,
    "controlnet_": CONTROLNET,
}
"""Parts of names that only what is added to a model has; the model's own are in them, too."""

HALLO3 = {
    "transformer.layers.0.audio_attn.": "denoiser",
    REFERENCE_NETWORK: "reference network",
    AUDIO_PROJECTOR: "audio projector",
}
"""Of the published file, which has all of them, and of those that it is converted to."""

SIGNATURES = {
    "decoder.mid.block_1.norm1.conv_y.": VAE,
    "decoder.mid_block.resnets.0.norm1.conv_y.": VAE,
    # whole models and their denoisers
    "denoising_unet.": "a Hallo or Hallo2 model",
    "reference_unet.": "a Hallo or Hallo2 model",
    "conditioner.embedders.": "a Stable Diffusion XL checkpoint",
    "cond_stage_model.": "a Stable Diffusion 1 or 2 checkpoint",
    "mixins.patch_embed.": "a CogVideoX transformer in the authors' names",
    "joint_blocks.0.context_block.": SD3,
    "txt_in.individual_token_refiner.": "a HunyuanVideo model",
    "double_blocks.": "a Flux model",
    "single_transformer_blocks.": "a Flux or HunyuanVideo model in diffusers' names",
    "patchify_proj.": "an LTX video model",
    "adaln_single.": "an LTX or PixArt model",
    "txt_norm.": "a Qwen-Image model",
    "cap_embedder.": "a Lumina or Z-Image model",
    "blocks.0.cross_attn.q.": "a Wan video model",
    "condition_embedder.time_embedder.": "a Wan video model in diffusers' names",
    "t5_yproj.": "a Mochi model",
    "attn.add_q_proj.": f"{SD3} in diffusers' names",
    "attentions.0.transformer_blocks.": "a Stable Diffusion UNet in diffusers' names",
    "transformer_blocks.0.attn1.": "a CogVideoX transformer in diffusers' names",
    "input_blocks.0.0.": "a Stable Diffusion model",
    # encoders of text, pictures and speech
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.": "a UMT5 text encoder",
    "encoder.block.0.layer.0.SelfAttention.": TEXT_ENCODER,
    "text_model.encoder.layers.": "a CLIP text encoder",
    "vision_model.encoder.layers.": "a CLIP vision encoder",
    "transformer.resblocks.": "a CLIP encoder",
    "model.layers.0.self_attn.": "a language model",
    "encoder.embed_positions.": "a Whisper speech recogniser",
    "blocks.0.mlp_ln.": "a Whisper speech recogniser",
    "hubert.": "a HuBERT speech encoder",
    "gru_rel_pos_": "a WavLM speech encoder",
    "quantizer.codevectors": "a wav2vec2 that has not learnt to recognise speech",
    "encoder.layers.12.attention.k_proj.": "a larger speech encoder than wav2vec2-base",
    "wav2vec2.": SPEECH_ENCODER,
    "feature_extractor.conv_layers.": SPEECH_ENCODER,
    # autoencoders
    "decoder.middle.0.residual.": "the VAE of Wan or Qwen-Image",
    "decoder.up_blocks.0.res_blocks.": "the VAE of LTX",
    "decoder.conv_in.conv.": "the VAE of HunyuanVideo",
    "decoder.blocks.2.blocks.3.stack.": "the VAE of Mochi",
    "decoder.mid": "an image VAE, as those of Stable Diffusion and Flux",
}
"""Parts of names that only some networks have, the first of which counts."""


def hallo3_parts(names: Iterable[str]) -> list[str]:
    """Which networks of Hallo3 have some of these names, a LoRA of them none."""
    text = "\n".join(names)
    added = any(sign in text for sign in ADDITIONS)
    return [part for sign, part in HALLO3.items() if sign in text and not added]


def describe(names: Iterable[str]) -> str:
    """What weights of these names are, for people."""
    names = list(names)
    text, parts = "\n".join(names), hallo3_parts(names)
    own = TRANSFORMERS if len(parts) == len(HALLO3) else f"the Hallo3 {' and '.join(parts)}"
    hallo3 = dict.fromkeys(HALLO3, own)
    for sign, what in (ADDITIONS | hallo3 | SIGNATURES).items():
        if sign in text:
            return what
    if not names:
        return "a file without tensors"
    count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"a network that is not known here ({count}: {_some(names)})"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or PyTorch file, memory-mapped.

    Raises `InputError` for a file that is missing, cut short or no weights file at all.
    """
    kind = read_kind(path, "weights", SAFETENSORS, ZIP)
    if part := re.search(r"-0*(\d+)-of-0*(\d+)\.", path.name):
        raise InputError(
            f"{path} is part {part[1]} of {part[2]} of a network: choose a file that has it whole."
        )
    whole = is_zipfile(path)
    try:
        if kind is SAFETENSORS:
            return load_file(path)
        if whole:
            _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except InputError:
        raise
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
        names = archive.namelist()
        if not any(name.endswith("data.pkl") for name in names):
            raise InputError(
                f"{path} is a ZIP archive ({_some(names)}), not weights: unpack it and choose the "
                "file that was in it."
            )
        for name in names:
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
            "it is not whole, download or convert it again."
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


def load_pretrained(network: type, folder: Path, name: str):
    """A network of transformers from a folder as it saves them, whole or not at all.

    `name` is what it is called where it is published. Raises `InputError` where transformers would
    go on with random weights, or with those of another kind of network.
    """
    read_config(folder, network.config_class.model_type, name)
    try:
        module, info = network.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises many kinds
        for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
            read_kind(file, "weights", SAFETENSORS, ZIP)
        raise InputError(
            f"The files in {folder} cannot be loaded ({type(error).__name__}): download all of "
            f"{name} again."
        ) from error
    missing = [str(key) for key in (*info["missing_keys"], *info["mismatched_keys"])]
    if missing:
        raise InputError(
            f"The weights in {folder} lack {len(missing)} tensors ({_some(missing)}): download all "
            f"of {name} again."
        )
    return module.eval().requires_grad_(False)


def read_config(folder: Path, kind: str, name: str) -> dict:
    """The configuration in a folder as transformers saves it, of a network of a kind.

    `name` is what it is called where it is published. Raises `InputError` for that of another one.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"There is no config.json in {folder}: download all of {name} into it.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        found = config.get("model_type") or config.get("_class_name") or "nothing known"
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{file} cannot be read ({type(error).__name__}): download it again."
        ) from error
    if found != kind:
        raise InputError(f"{folder} is a folder of {found}, not {kind}: choose that of {name}.")
    return config


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}
