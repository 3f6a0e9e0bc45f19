"""The prompt: 226 T5 tokens, padded, without an attention mask."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5Config, T5EncoderModel

from .checkpoints.filling import fill
from .checkpoints.pretrained import load_pretrained
from .checkpoints.reading import read_weights
from .checkpoints.recognise import TEXT_ENCODER, describe
from .errors import InputError
from .network.config import Hallo3Config

NAME = "google/t5-v1_1-xxl"
TOKENIZERS = ("t5-v1_1-xxl", "t5_tokenizer", "../../comfy/text_encoders/t5_tokenizer")
"""Folders beside a single file of T5 where its tokenizer may be; the last is ComfyUI's own."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextEncoder:
    tokenizer: PreTrainedTokenizerBase
    encoder: T5EncoderModel
    tokens: int = Hallo3Config.text_tokens

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype, width: int | None = None) -> "TextEncoder":
        """A T5 encoder: a folder as transformers saves it, or one file as ComfyUI has it.

        Raises `InputError` if it is another network, or if tokens have not the `width` that is
        wanted.
        """
        if not path.exists():
            raise InputError(
                f"There is no T5 for the prompt at {path}: bring it there with `python -m "
                "hallo3_core download --text-encoder fp16`, or leave the prompt out."
            )
        if path.is_dir():
            encoder = load_pretrained(T5EncoderModel, path, NAME).to(dtype)
            folders = [path]
        else:
            weights = unscaled(read_weights(path))
            encoder, names = t5_layout(weights, path)
            fill(encoder, weights, names, dtype, path)
            folder = path.resolve().parent
            folders = [folder, *(folder / name for name in TOKENIZERS)]
        found = encoder.config.d_model
        if width not in (None, found):
            raise InputError(
                f"{path} is a T5 of width {found} and the model takes {width}: put {NAME} there."
            )
        return cls(load_tokenizer(folders), encoder)

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """The prompt cut or padded to `tokens`: (1, tokens, text width), float32."""
        length = len(self.tokenizer(prompt).input_ids)
        if length > self.tokens:
            logger.warning(
                "The prompt has %d tokens: what comes after %d is cut off.", length, self.tokens
            )
        ids = self.tokenizer(
            prompt,
            max_length=self.tokens,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids

        return self.encoder(ids.to(self.encoder.device)).last_hidden_state.float()


def unscaled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights multiplied by the scales that ComfyUI's scaled fp8 files have beside them."""
    found = {}
    for name, value in weights.items():
        scale = weights.get(name.removesuffix("weight") + "scale_weight")
        scale = weights.get(f"{name}_scale", scale)
        found[name] = value if scale is None else value.float() * scale
    return found


def load_tokenizer(folders: list[Path]) -> PreTrainedTokenizerBase:
    """The tokenizer in the first of the folders that has one."""
    failure = "nothing there"
    for folder in folders:
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises many kinds
            failure = type(error).__name__
    raise InputError(
        f"There is no T5 tokenizer in {folders[0]} ({failure}): put tokenizer.json or spiece.model "
        "of google/t5-v1_1-xxl there."
    )


def t5_layout(weights: dict[str, Tensor], file: Path) -> tuple[T5EncoderModel, dict[str, str]]:
    """A T5 v1.1 encoder without weights of the sizes in `file`, and its names there."""
    looks_like = describe(weights)
    if looks_like != TEXT_ENCODER:
        raise InputError(
            f"{file} is not a T5 v1.1 encoder but {looks_like}: choose t5xxl_fp16 or "
            "t5xxl_fp8_e4m3fn."
        )
    names = [re.match(r"encoder\.block\.(\d+)\.", name) for name in weights]
    layers = 1 + max((int(match[1]) for match in names if match), default=-1)
    block = "encoder.block.0.layer"
    try:
        vocabulary, width = weights["shared.weight"].shape
        heads = weights[f"{block}.0.SelfAttention.relative_attention_bias.weight"].shape[1]
        config = T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=weights[f"{block}.0.SelfAttention.q.weight"].shape[0] // heads,
            d_ff=weights[f"{block}.1.DenseReluDense.wi_0.weight"].shape[0],
            num_layers=layers,
            num_heads=heads,
            feed_forward_proj="gated-gelu",
        )
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{file} is a T5 that is not whole, or not of version 1.1: choose t5xxl_fp16 or "
            "t5xxl_fp8_e4m3fn."
        ) from error
    with torch.device("meta"):
        module = T5EncoderModel(config)
    names = {ours: ours for ours in module.state_dict()}
    return module, names | {
        ours: "shared.weight" for ours in names if ours.endswith("embed_tokens.weight")
    }
