"""A whole small model in files, laid out like the published download."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from hallo3_core import builtin
from hallo3_core.checkpoints.names import ROTARY_TABLE
from hallo3_core.memory.plan import MemoryPlan
from hallo3_core.model.finding import SPEECH_FOLDER, TEXT_FOLDER, TRANSFORMER_FILE, VAE_FILE
from hallo3_core.model.layout import NETWORKS, published_weights
from hallo3_core.network.config import LATENT_FRAMES, Hallo3Config
from parity import FIXTURES

CONFIG = Hallo3Config(
    layers=2,
    heads=1,
    time_width=32,
    text_width=64,
    latent_height=4,
    latent_width=6,
    audio_channels=8,
    audio_hidden=16,
    audio_tokens=2,
    audio_width=16,
    face_width=16,
)
WORDS = ["a", "woman", "speaks", "to", "the", "camera"]


def published(config: Hallo3Config) -> dict[str, Tensor]:
    """Random weights in bf16 under the published names, with the tensors that nothing reads."""
    torch.manual_seed(1)
    states = [network(config).bfloat16().state_dict() for network, *_ in NETWORKS]
    weights = published_weights(*states)
    rows = LATENT_FRAMES * config.frame_tokens
    weights[ROTARY_TABLE] = torch.zeros(rows, config.head_width)
    return weights


def save_t5(folder: Path) -> Path:
    """A T5 v1.1 of width 64 and its tokenizer, as transformers saves them."""
    torch.manual_seed(1)
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"▁{word}", -1.0 - i) for i, word in enumerate(WORDS)]
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = T5Config(
        vocab_size=16,
        d_model=64,
        d_kv=8,
        d_ff=96,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def save_model(folder: Path) -> Path:
    """All networks of `CONFIG`: random transformers, and the built-in model's autoencoder."""
    for name in (TRANSFORMER_FILE, VAE_FILE):
        (folder / name).parent.mkdir(parents=True)
    torch.save({"module": published(CONFIG)}, folder / TRANSFORMER_FILE)
    autoencoder = load_file(builtin.WEIGHTS / builtin.VAE_FILE)
    torch.save({"state_dict": autoencoder}, folder / VAE_FILE)
    sizes = json.loads((FIXTURES / "audio_config.json").read_text())["wav2vec2"]
    torch.manual_seed(1)
    Wav2Vec2Model(Wav2Vec2Config(**sizes)).save_pretrained(folder / SPEECH_FOLDER)
    save_t5(folder / TEXT_FOLDER)
    return folder


def changed(plan: MemoryPlan, streamed: int = 0, **others) -> MemoryPlan:
    """The plan with so many layers of each transformer one by one, and other fields."""
    stages = [replace(stage, streamed=streamed if stage.layer else 0) for stage in plan.stages]
    return replace(plan, stages=tuple(stages), **others)
