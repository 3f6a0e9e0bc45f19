"""The names of the transformers' parameters: the published ones and ours."""

import re
from collections.abc import Iterable, Mapping

DENOISER = "model.diffusion_model."
REFERENCE_NETWORK = "ref_model.diffusion_model."
AUDIO_PROJECTOR = DENOISER + "transformer.audio_proj."

ROTARY_TABLE = DENOISER + "mixins.pos_embed.freqs_cos"

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
    """The number of denoiser layers in a published checkpoint with these names; at least 1."""
    pattern = re.compile(re.escape(DENOISER) + r"transformer\.layers\.(\d+)\.")
    return 1 + max((int(m[1]) for name in names if (m := pattern.match(name))), default=0)


def published_names(names: Iterable[str], prefix: str, table: Mapping[str, str]) -> dict[str, str]:
    """Map our parameter names to the published ones.

    A published name is `prefix` and the name that `table` gives.
    """
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
