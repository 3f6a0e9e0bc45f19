"""All networks of one Hallo3 model, and how they are loaded from the published files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from transformers import Wav2Vec2Model

from . import checkpoint, vae
from .conditioning import AudioProjector
from .config import Hallo3Config
from .errors import InputError
from .text import TextEncoder
from .transformer import Denoiser, ReferenceNetwork

TRANSFORMER_FILE = "hallo3/1/mp_rank_00_model_states.pt"
VAE_FILE = "cogvideox-5b-i2v-sat/vae/3d-vae.pt"
SPEECH_FOLDER = "wav2vec/wav2vec2-base-960h"
TEXT_FOLDER = "t5-v1_1-xxl"

NETWORKS = (
    (Denoiser, checkpoint.DENOISER, checkpoint.TRANSFORMER_NAMES),
    (ReferenceNetwork, checkpoint.REFERENCE_NETWORK, checkpoint.TRANSFORMER_NAMES),
    (AudioProjector, checkpoint.AUDIO_PROJECTOR, checkpoint.AUDIO_PROJECTOR_NAMES),
)
"""The networks of the transformer file, and how their parameters are named there."""

Transformers = tuple[Denoiser, ReferenceNetwork, AudioProjector]


@dataclass(frozen=True)
class Hallo3:
    """The networks of one model; `text_encoder` loads the prompt's, which few need."""

    denoiser: Denoiser
    reference_network: ReferenceNetwork
    audio_projector: AudioProjector
    vae: AutoencoderKLCogVideoX
    speech_encoder: Wav2Vec2Model
    text_encoder: Callable[[], TextEncoder]

    @property
    def config(self) -> Hallo3Config:
        return self.denoiser.config

    @property
    def device(self) -> torch.device:
        return self.denoiser.embed.position.device

    @property
    def dtype(self) -> torch.dtype:
        return self.denoiser.embed.position.dtype

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Hallo3":
        """Everything to `device`, and all but the speech encoder to `dtype`."""
        for network in (self.denoiser, self.reference_network, self.audio_projector, self.vae):
            # past diffusers' own `to`, which warns of an empty list of exceptions
            nn.Module.to(network, device, dtype)
        self.speech_encoder.to(device)
        return self

    @classmethod
    def from_folder(cls, path: Path, dtype: torch.dtype = torch.float32) -> "Hallo3":
        """The model in a folder laid out like the published download, or around its weights file.

        Raises `InputError` for a file that is missing or is not what it should be.
        """
        if not path.exists():
            raise InputError(f"There is no model {path}: give the folder of the published model.")
        file = path / TRANSFORMER_FILE if path.is_dir() else path.resolve()
        folder = file.parent.parent.parent
        transformers = load_transformers(file, dtype)
        speech_encoder = load_speech_encoder(folder / SPEECH_FOLDER)
        wanted, found = transformers[0].config.audio_channels, speech_encoder.config.hidden_size
        if found != wanted:
            raise InputError(
                f"The speech encoder in {folder / SPEECH_FOLDER} has {found} channels and the "
                f"model takes {wanted}: use wav2vec2-base-960h."
            )
        return cls(
            *transformers,
            load_vae(folder / VAE_FILE, dtype),
            speech_encoder,
            lambda: TextEncoder.from_folder(folder / TEXT_FOLDER, dtype),
        )


def published_layout(
    shapes: Mapping[str, tuple[int, ...]],
    source: Path,
    latent_size: tuple[int, int] | None = None,
) -> tuple[Hallo3Config, list[dict[str, str]]]:
    """The sizes of a published checkpoint, and its name for every parameter of each of `NETWORKS`.

    `shapes` are those of all its tensors. `latent_size` (height, width) of the latent grid is
    needed for a canvas that is not 2:3. Raises `InputError` naming `source` if it is not Hallo3
    or lacks tensors.
    """
    if not any(name.startswith(checkpoint.ONLY_HALLO3) for name in shapes):
        raise InputError(
            f"{source} is not Hallo3 but {checkpoint.describe(shapes)}: "
            f"choose {Path(TRANSFORMER_FILE).name} of the published model."
        )
    some_config = Hallo3Config(layers=checkpoint.layer_count(shapes))
    layouts = [
        checkpoint.published_names(network(some_config, device="meta").state_dict(), prefix, table)
        for network, prefix, table in NETWORKS
    ]
    checkpoint.require([name for layout in layouts for name in layout.values()], shapes, source)
    denoiser, _, audio_projector = (
        {ours: shapes[theirs] for ours, theirs in layout.items()} for layout in layouts
    )
    rotary_rows = shapes.get(checkpoint.ROTARY_TABLE, [0])[0]
    try:
        config = Hallo3Config.from_shapes(denoiser, audio_projector, rotary_rows, latent_size)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{source} has tensors in shapes that are not Hallo3's: download it again."
        ) from error
    return config, layouts


def load_transformers(
    file: Path, dtype: torch.dtype = torch.float32, latent_size: tuple[int, int] | None = None
) -> Transformers:
    """Denoiser, reference network and audio projector from a published checkpoint."""
    weights = checkpoint.read_weights(file)
    config, layouts = published_layout(checkpoint.shapes(weights), file, latent_size)
    networks = []
    for (network, *_), layout in zip(NETWORKS, layouts, strict=True):
        module = network(config, device="meta")
        checkpoint.load(module, weights, layout, dtype, file)
        networks.append(module)
    return tuple(networks)


def load_vae(file: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKLCogVideoX:
    """The video autoencoder from a file of the published or of diffusers' names."""
    weights = checkpoint.read_weights(file)
    names = {ours: theirs for theirs, ours in vae.to_diffusers_names(list(weights)).items()}
    if not names:
        looks_like = checkpoint.describe(weights)
        raise InputError(f"{file} is not the CogVideoX VAE but {looks_like}: choose 3d-vae.pt.")
    shapes = {ours: weights[theirs].shape for ours, theirs in names.items()}
    try:
        with torch.device("meta"):
            module = vae.autoencoder(**vae.config_from_shapes(shapes))
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{file} is not a whole CogVideoX VAE ({type(error).__name__}: {error}): "
            "download 3d-vae.pt again."
        ) from error
    layout = {ours: names.get(ours, ours) for ours in module.state_dict()}
    checkpoint.load(module, weights, layout, dtype, file)
    return module


def load_speech_encoder(folder: Path) -> Wav2Vec2Model:
    """wav2vec2 as transformers saves it, float32."""
    return checkpoint.load_pretrained(Wav2Vec2Model, folder)
