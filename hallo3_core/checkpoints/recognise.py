"""Recognise a weights file by the names of its tensors."""

from collections.abc import Iterable

from ..errors import some
from .names import AUDIO_PROJECTOR, REFERENCE_NETWORK

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
"""Parts of names that only additions to a model have.

Their files also have names of the model itself, so these are checked first.
"""

HALLO3 = {
    "transformer.layers.0.audio_attn.": "denoiser",
    REFERENCE_NETWORK: "reference network",
    AUDIO_PROJECTOR: "audio projector",
}
"""Parts of names in Hallo3's files. The published file has all; a converted file has one."""

SIGNATURES = {
    "decoder.mid.block_1.norm1.conv_y.": VAE,
    "decoder.mid_block.resnets.0.norm1.conv_y.": VAE,
    # whole models and their denoisers
    "denoising_unet.": "a Hallo or Hallo2 model",
    "reference_unet.": "a Hallo or Hallo2 model",
    "conditioner.embedders.": "a Stable Diffusion XL checkpoint",
    "cond_stage_model.": "a Stable Diffusion 1 or 2 checkpoint",
    "mixins.patch_embed.": "a CogVideoX transformer in the authors' format",
    "joint_blocks.0.context_block.": SD3,
    "txt_in.individual_token_refiner.": "a HunyuanVideo model",
    "double_blocks.": "a Flux model",
    "single_transformer_blocks.": "a Flux or HunyuanVideo model in diffusers format",
    "patchify_proj.": "an LTX video model",
    "adaln_single.": "an LTX or PixArt model",
    "txt_norm.": "a Qwen-Image model",
    "cap_embedder.": "a Lumina or Z-Image model",
    "blocks.0.cross_attn.q.": "a Wan video model",
    "condition_embedder.time_embedder.": "a Wan video model in diffusers format",
    "t5_yproj.": "a Mochi model",
    "attn.add_q_proj.": f"{SD3} in diffusers format",
    "attentions.0.transformer_blocks.": "a Stable Diffusion UNet in diffusers format",
    "transformer_blocks.0.attn1.": "a CogVideoX transformer in diffusers format",
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
    "quantizer.codevectors": "a wav2vec2 that was not fine-tuned for speech recognition",
    "encoder.layers.12.attention.k_proj.": "a larger speech encoder than wav2vec2-base",
    "wav2vec2.": SPEECH_ENCODER,
    "feature_extractor.conv_layers.": SPEECH_ENCODER,
    # autoencoders
    "decoder.middle.0.residual.": "the VAE of Wan or Qwen-Image",
    "decoder.up_blocks.0.res_blocks.": "the VAE of LTX",
    "decoder.conv_in.conv.": "the VAE of HunyuanVideo",
    "decoder.blocks.2.blocks.3.stack.": "the VAE of Mochi",
    "decoder.mid": "an image VAE, like those of Stable Diffusion and Flux",
}
"""Parts of names that only some networks have. The first one found decides."""


def hallo3_parts(names: Iterable[str]) -> list[str]:
    """The networks of Hallo3 that have some of these names; none if they are a LoRA's."""
    text = "\n".join(names)
    added = any(sign in text for sign in ADDITIONS)
    return [part for sign, part in HALLO3.items() if sign in text and not added]


def describe(names: Iterable[str]) -> str:
    """What weights with these names are, in words for the user."""
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
    return f"an unknown network ({count}: {some(names)})"
