"""Encoding of the prompt with T5: padded to 226 tokens, without an attention mask."""

import logging
import re
from collections.abc import Mapping
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
"""Folders, relative to a single T5 file, that may have its tokenizer. The last is ComfyUI's own."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextEncoder:
    """A T5 encoder and its tokenizer. Calling it encodes a prompt."""

    tokenizer: PreTrainedTokenizerBase
    encoder: T5EncoderModel
    tokens: int = Hallo3Config.text_tokens

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype, width: int | None = None) -> "TextEncoder":
        """Load a T5 encoder: a folder saved by transformers, or one file as ComfyUI uses it.

        Raises `InputError` if `path` does not exist, is another network, has no tokenizer beside
        it, or has another `width` than asked for.
        """
        if not path.exists():
            raise InputError(
                f"There is no T5 for the prompt at {path}: download it with `python -m "
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
                f"{path} is a T5 of width {found}, but the model needs {width}: put {NAME} there."
            )
        return cls(load_tokenizer(folders), encoder)

    def count(self, prompt: str) -> int:
        """The number of tokens of a prompt."""
        return len(self.tokenizer(prompt).input_ids)

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """Encode a prompt, cut or padded to `tokens`: (1, tokens, text width), float32."""
        check_length(self.count(prompt), self.tokens)
        ids = self.tokenizer(
            prompt,
            max_length=self.tokens,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids

        return self.encoder(ids.to(self.encoder.device)).last_hidden_state.float()


def check_length(length: int, most: int) -> None:
    """Warn if a prompt has more than `most` tokens."""
    if length > most:
        logger.warning("The prompt has %d tokens: what comes after %d is cut off.", length, most)


def unscaled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply each weight by its scale. ComfyUI's scaled fp8 files store a scale beside it."""
    found = {}
    for name, value in weights.items():
        scale = weights.get(name.removesuffix("weight") + "scale_weight")
        scale = weights.get(f"{name}_scale", scale)
        found[name] = value if scale is None else value.float() * scale
    return found


def load_tokenizer(folders: list[Path]) -> PreTrainedTokenizerBase:
    """Load the tokenizer from the first folder that has one. Raises `InputError` if none has."""
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


def t5_layout(weights: Mapping[str, Tensor], file: Path) -> tuple[T5EncoderModel, dict[str, str]]:
    """Make a T5 v1.1 encoder with the sizes of `weights`, without its weights (on meta).

    Also returns which name in `file` belongs to each of its parameters. Raises `InputError` if the
    file is not a T5 v1.1 encoder.
    """
    looks_like = describe(weights)
    if looks_like != TEXT_ENCODER:
        raise InputError(
            f"{file} is not a T5 v1.1 encoder but {looks_like}: choose t5xxl_fp16 or "
            "t5xxl_fp8_e4m3fn."
        )
    blocks = [re.match(r"encoder\.block\.(\d+)\.", name) for name in weights]
    layers = 1 + max((int(match[1]) for match in blocks if match), default=-1)
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
            f"{file} is an incomplete T5, or not of version 1.1: choose t5xxl_fp16 or "
            "t5xxl_fp8_e4m3fn."
        ) from error
    with torch.device("meta"):
        module = T5EncoderModel(config)
    names = {ours: ours for ours in module.state_dict()}
    return module, names | {
        ours: "shared.weight" for ours in names if ours.endswith("embed_tokens.weight")
    }
