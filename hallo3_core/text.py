"""The prompt: 226 T5 tokens, padded, without an attention mask."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel

from .checkpoint import load_pretrained
from .config import Hallo3Config
from .errors import InputError


@dataclass(frozen=True)
class TextEncoder:
    tokenizer: PreTrainedTokenizerBase
    encoder: T5EncoderModel
    tokens: int = Hallo3Config.text_tokens

    @classmethod
    def from_folder(cls, folder: Path, dtype: torch.dtype) -> "TextEncoder":
        """A T5 encoder and its tokenizer as transformers saves them."""
        encoder = load_pretrained(T5EncoderModel, folder).to(dtype)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises many kinds
            raise InputError(
                f"There is no tokenizer in {folder} ({type(error).__name__}): "
                "download the folder whole."
            ) from error
        return cls(tokenizer, encoder)

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """The prompt cut or padded to `tokens`: (1, tokens, text width), float32."""
        ids = self.tokenizer(
            prompt,
            max_length=self.tokens,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids

        return self.encoder(ids.to(self.encoder.device)).last_hidden_state.float()
