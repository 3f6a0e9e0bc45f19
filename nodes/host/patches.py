"""Runs the layers of the denoiser with the patches that ComfyUI's nodes put into a MODEL.

The patches have the same places as in ComfyUI's own transformers that keep text and image apart:
`patches_replace["dit"]` with ("double_block", i) wraps layer i, and `attn1_output_patch` changes
the output of self-attention. Two nodes replace self-attention itself. Perturbed Attention Guidance
names the middle of a UNet, and here gets the middle layer. Spatio-Temporal Guidance names layers.
"""

from collections.abc import Callable
from functools import partial

from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor

from ...hallo3_core.network.blocks import DenoiserLayer
from ...hallo3_core.network.layers import merge_heads, split_heads

BLOCK = "double_block"
MIDDLE = ("middle", 0)
OUTPUT = "attn1_output_patch"
PASS_THROUGH = "stg_self_attn_blocks"
"""The layers whose self-attention Spatio-Temporal Guidance replaces by the values."""


def run_patched(options: dict, layers: int, tokens: tuple[int, int]) -> Callable:
    """A function that runs a layer with the patches in `options`. It is called as `run_layer` is.

    `tokens` are two numbers: the tokens of the text, and those of text and image together.
    """
    blocks = options.get("patches_replace", {}).get("dit", {})
    options |= {"total_blocks": layers, "block_type": "double", "img_slice": list(tokens)}
    across = partial(host_attention, options)

    def run(index: int, layer: DenoiserLayer, *inputs) -> tuple[Tensor, Tensor]:
        text, image, time, rotary, *keys_values = inputs
        options["block_index"] = index
        own = partial(own_attention, options, replaced_attention(options, index, layers))

        def block(args: dict) -> dict:
            patched = args["txt"], args["img"], args["vec"], args["pe"]
            text, image = layer(*patched, own, *keys_values, across)
            return {"txt": text, "img": image}

        args = {"txt": text, "img": image, "vec": time, "pe": rotary}
        args |= {"attn_mask": None, "transformer_options": options}
        replace = blocks.get((BLOCK, index))
        out = replace(args, {"original_block": block}) if replace else block(args)
        return out["txt"], out["img"]

    return run


def replaced_attention(options: dict, index: int, layers: int) -> Callable | None:
    """The function that a node has put in the place of a layer's self-attention, or None."""
    if index in options.get(PASS_THROUGH, ()):
        return lambda query, key, value, options: value
    if index == layers // 2:
        return options.get("patches_replace", {}).get("attn1", {}).get(MIDDLE)
    return None


def own_attention(
    options: dict, replace: Callable | None, query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """Self-attention with the patches of nodes, which get (batch, tokens, width).

    A node that replaces self-attention gets the tokens of text and image, without those of the
    reference.
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
    """ComfyUI's attention; on a CPU torch's.

    ComfyUI's choice for a CPU is made for old GPUs, and takes twice as long.
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
