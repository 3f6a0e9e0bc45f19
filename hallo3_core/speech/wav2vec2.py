"""Loads the speech encoder wav2vec2 from a file or from a folder of transformers."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2Model

from ..checkpoints.filling import fill
from ..checkpoints.pretrained import read_config
from ..checkpoints.reading import read_weights
from ..checkpoints.recognise import SPEECH_ENCODER, describe
from ..errors import InputError
from ..network.config import AUDIO_LAYERS

NAME = "wav2vec2-base-960h"
FILES = ("model.safetensors", "pytorch_model.bin")


def speech_encoder_layout(
    weights: Mapping[str, Tensor], file: Path, config: Wav2Vec2Config | None = None
) -> tuple[Wav2Vec2Model, dict[str, str]]:
    """wav2vec2 without weights, and a mapping from its tensor names to the names in `file`.

    The sizes are those of `config`, by default of wav2vec2-base. The file may contain the speech
    recogniser (wav2vec2 with a head). It may come from an older torch, which has other names for
    the parts of a weight norm. Only training uses `masked_spec_embed`. Raises `InputError` if the
    weights are of another model.
    """
    looks_like = describe(weights)
    if looks_like != SPEECH_ENCODER:
        raise InputError(f"{file} is not {NAME} but {looks_like}: choose {FILES[0]} of {NAME}.")
    config = config or Wav2Vec2Config()
    config.mask_time_prob = config.mask_feature_prob = 0
    with torch.device("meta"):
        module = Wav2Vec2Model(config)
    theirs_of = {_speech_encoder_name(theirs): theirs for theirs in weights}
    return module, {ours: theirs_of.get(ours, ours) for ours in module.state_dict()}


def _speech_encoder_name(name: str) -> str:
    name = name.removeprefix("wav2vec2.")
    name = name.replace("conv.weight_g", "conv.parametrizations.weight.original0")
    return name.replace("conv.weight_v", "conv.parametrizations.weight.original1")


def load_speech_encoder(path: Path) -> Wav2Vec2Model:
    """Load wav2vec2 in float32, from a folder of transformers or a file of wav2vec2-base-960h.

    Raises `InputError` if the files are missing, damaged or of another model.
    """
    file = speech_file(path) if path.is_dir() else path
    config = speech_encoder_config(file.parent) if (file.parent / "config.json").exists() else None
    weights = read_weights(file)
    module, names = speech_encoder_layout(weights, file, config)
    fill(module, weights, names, torch.float32, file)
    return module


def speech_encoder_config(folder: Path) -> Wav2Vec2Config:
    """The configuration in a folder of transformers.

    Raises `InputError` if the network is not a wav2vec2 with 12 layers like those of wav2vec2-base.
    """
    found = read_config(folder, Wav2Vec2Config.model_type, NAME)
    config = Wav2Vec2Config.from_dict(found)
    if config.num_hidden_layers != AUDIO_LAYERS or config.do_stable_layer_norm:
        raise InputError(
            f"{folder} is a folder of a wav2vec2 of {config.num_hidden_layers} layers, not of the "
            f"{AUDIO_LAYERS} layers of wav2vec2-base: choose the folder of {NAME}."
        )
    return config


def speech_file(folder: Path) -> Path:
    """The weights file in a folder of transformers. Raises `InputError` if there is none."""
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"There are no weights in {folder}: download {FILES[0]} into it.")
