"""What ComfyUI's nodes patch into a MODEL, in the layers of the denoiser.

The places are those of the host's own transformers with text and image side by side:
`patches_replace["dit"]` with ("double_block", i) stands around layer i, `attn1_output_patch` behind
self-attention. Self-attention itself is replaced by Perturbed Attention Guidance, which names the
middle of a UNet and gets the middle layer, and by Spatio-Temporal Guidance.
"""

from collections.abc import Callable
from functools import partial

from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor

from ...hallo3_core.network.blocks import DenoiserLayer
from ...hallo3_core.network.layers import KeyValue, Rotary, merge_heads, split_heads

BLOCK = "double_block"
MIDDLE = ("middle", 0)
OUTPUT = "attn1_output_patch"
PASS_THROUGH = "stg_self_attn_blocks"
"""Layers in which Spatio-Temporal Guidance replaces self-attention by its values."""


def run_patched(options: dict, layers: int, tokens: tuple[int, int]) -> Callable:
    """What runs a layer in the place of `run_layer`, with the patches of a call's options.

    `tokens` are those of text and of text and image.
    """
    blocks = options.get("patches_replace", {}).get("dit", {})
    options |= {"total_blocks": layers, "block_type": "double", "img_slice": list(tokens)}
    across = partial(host_attention, options)

    def run(
        index: int,
        layer: DenoiserLayer,
        text: Tensor,
        image: Tensor,
        time: Tensor,
        rotary: Rotary,
        *keys_values: KeyValue,
    ) -> tuple[Tensor, Tensor]:
        options["block_index"] = index
        own = partial(own_attention, options, replaced_attention(options, index, layers))

        def block(args: dict) -> dict:
            inputs = args["txt"], args["img"], args["vec"], args["pe"]
            text, image = layer(*inputs, own, *keys_values, across)
            return {"txt": text, "img": image}

        args = {"txt": text, "img": image, "vec": time, "pe": rotary}
        args |= {"attn_mask": None, "transformer_options": options}
        replace = blocks.get((BLOCK, index))
        out = replace(args, {"original_block": block}) if replace else block(args)
        return out["txt"], out["img"]

    return run


def replaced_attention(options: dict, index: int, layers: int) -> Callable | None:
    """What a node has put in the place of the self-attention of a layer."""
    if index in options.get(PASS_THROUGH, ()):
        return lambda query, key, value, options: value
    if index == layers // 2:
        return options.get("patches_replace", {}).get("attn1", {}).get(MIDDLE)
    return None


def own_attention(
    options: dict, replace: Callable | None, query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """Self-attention with the patches of nodes, which see (batch, tokens, width).

    What replaces it sees the layer's own tokens and not those of the reference.
    """
    heads, tokens = query.shape[1:3]
    if replace:
        own = [merge_heads(part[:, :, :tokens]) for part in (query, key, value)]
        out = split_heads(replace(*own, options), heads)
    else:
        out = host_attention(options, query, key, value)
    for patch in options.get("patches", {}).get(OUTPUT, ()):
        out = split_heads(patch(merge_heads(out), options), heads)
    return out


def host_attention(options: dict, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """ComfyUI's attention.

    On a CPU its choice would be one for old GPUs, which takes twice as long as torch's.
    """
    attention = attention_pytorch if query.device.type == "cpu" else optimized_attention
    return attention(
        query,
        key,
        value,
        heads=query.shape[1],
        skip_reshape=True,
        skip_output_reshape=True,
        transformer_options=options,
    )
