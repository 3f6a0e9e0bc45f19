"""All networks of one Hallo3 model, and how they are loaded from the published files."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from . import checkpoint, vae
from .conditioning import AudioProjector
from .config import Hallo3Config
from .errors import InputError
from .text import TextEncoder
from .transformer import Denoiser, ReferenceNetwork
from .weights_file import read_metadata

TRANSFORMER_FILE = "hallo3/1/mp_rank_00_model_states.pt"
VAE_FILE = "cogvideox-5b-i2v-sat/vae/3d-vae.pt"
SPEECH_FOLDER = "wav2vec/wav2vec2-base-960h"
TEXT_FOLDER = "t5-v1_1-xxl"
CONVERTED_FILES = ("vae/hallo3_vae_*.safetensors", "audio_encoders/hallo3_wav2vec2.safetensors")

NETWORKS = (
    (Denoiser, checkpoint.DENOISER, checkpoint.TRANSFORMER_NAMES),
    (ReferenceNetwork, checkpoint.REFERENCE_NETWORK, checkpoint.TRANSFORMER_NAMES),
    (AudioProjector, checkpoint.AUDIO_PROJECTOR, checkpoint.AUDIO_PROJECTOR_NAMES),
)
"""The networks of the transformer file, and how their parameters are named there."""

PARTS = ("denoiser", "reference network", "audio projector")
"""What a converted file of each of `NETWORKS` says it is."""

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
        files = find_files(path)
        transformers = load_transformers(files.transformers, dtype)
        speech_encoder = load_speech_encoder(files.speech_encoder)
        wanted, found = transformers[0].config.audio_channels, speech_encoder.config.hidden_size
        if found != wanted:
            raise InputError(
                f"The speech encoder in {files.speech_encoder} has {found} channels and the "
                f"model takes {wanted}: use wav2vec2-base-960h."
            )
        return cls(
            *transformers,
            load_vae(files.vae, dtype),
            speech_encoder,
            lambda: TextEncoder.from_folder(files.text_encoder, dtype),
        )


class Files(NamedTuple):
    """Where the networks of a model lie."""

    transformers: Path
    vae: Path
    speech_encoder: Path
    text_encoder: Path


def find_files(path: Path) -> Files:
    """The files around a model's weights file, or in its folder.

    Laid out like the published download, or like ComfyUI's `models` as `convert` fills it.
    """
    if not path.exists():
        raise InputError(f"There is no model {path}: give the folder of the model.")
    if path.is_dir():
        converted = sorted((path / "diffusion_models").glob("hallo3_dit_*.safetensors"))
        if len(converted) > 1:
            names = ", ".join(file.name for file in converted)
            raise InputError(f"There are {names} in {path}: give the file itself.")
        path = converted[0] if converted else path / TRANSFORMER_FILE
    file = path.resolve()
    if "hallo3_network" in read_metadata(file):
        folder = file.parent.parent
        return Files(
            file,
            *(_first(folder, pattern) for pattern in CONVERTED_FILES),
            folder / "text_encoders" / TEXT_FOLDER,
        )
    folder = file.parent.parent.parent
    return Files(file, *(folder / name for name in (VAE_FILE, SPEECH_FOLDER, TEXT_FOLDER)))


def _first(folder: Path, pattern: str) -> Path:
    """The first file of a pattern, or the place where it is missing."""
    return next(iter(sorted(folder.glob(pattern))), folder / pattern)


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
    layouts = _layouts(Hallo3Config(layers=checkpoint.layer_count(shapes)), shapes, source)
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


def _layouts(config: Hallo3Config, names: Collection[str], source: Path) -> list[dict[str, str]]:
    """Our name to the published one for each of `NETWORKS`, which must be among `names`."""
    layouts = [
        checkpoint.published_names(network(config, device="meta").state_dict(), prefix, table)
        for network, prefix, table in NETWORKS
    ]
    checkpoint.require([name for layout in layouts for name in layout.values()], names, source)
    return layouts


class Opened(NamedTuple):
    """The transformers' weights, memory-mapped, and their name for every parameter."""

    weights: dict[str, Tensor]
    config: Hallo3Config
    layouts: list[dict[str, str]]


def open_transformers(file: Path, latent_size: tuple[int, int] | None = None) -> Opened:
    """A published checkpoint, or a converted denoiser and the files that were made with it.

    Raises `InputError` if a file is not Hallo3's or another is missing.
    """
    weights = checkpoint.read_weights(file)
    metadata = read_metadata(file)
    network = metadata.get("hallo3_network")
    if network is None:
        return Opened(weights, *published_layout(checkpoint.shapes(weights), file, latent_size))
    if network != PARTS[0]:
        raise InputError(
            f"{file} is the {network}: choose the denoiser beside it, hallo3_dit_....safetensors."
        )
    for other in PARTS[1:]:
        weights |= checkpoint.read_weights(_companion(file, metadata, other))
    config = Hallo3Config(**json.loads(metadata["config"]))
    return Opened(weights, config, _layouts(config, weights, file))


def _companion(file: Path, metadata: Mapping[str, str], network: str) -> Path:
    """The file beside `file` that was converted from the same source, at best to the same dtype."""
    others = {other: read_metadata(other) for other in sorted(file.parent.glob("*.safetensors"))}
    fitting = [
        other
        for other, found in others.items()
        if found.get("hallo3_network") == network
        and found["source_sha256"] == metadata["source_sha256"]
    ]
    if not fitting:
        raise InputError(
            f"The {network} that was made with {file.name} is not in {file.parent}: put it there, "
            "or convert again."
        )
    return min(fitting, key=lambda other: others[other]["dtype"] != metadata["dtype"])


def load_transformers(
    file: Path, dtype: torch.dtype = torch.float32, latent_size: tuple[int, int] | None = None
) -> Transformers:
    """Denoiser, reference network and audio projector from a published checkpoint."""
    weights, config, layouts = open_transformers(file, latent_size)
    networks = []
    for (network, *_), layout in zip(NETWORKS, layouts, strict=True):
        module = network(config, device="meta")
        checkpoint.load(module, weights, layout, dtype, file)
        networks.append(module)
    return tuple(networks)


def vae_layout(
    weights: Mapping[str, Tensor], file: Path
) -> tuple[AutoencoderKLCogVideoX, dict[str, str]]:
    """An autoencoder without weights for those of `file`, and their name for each of its own."""
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
    return module, {ours: names.get(ours, ours) for ours in module.state_dict()}


def load_vae(file: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKLCogVideoX:
    """The video autoencoder from a file of the published or of diffusers' names."""
    weights = checkpoint.read_weights(file)
    module, names = vae_layout(weights, file)
    checkpoint.load(module, weights, names, dtype, file)
    return module


def speech_encoder_layout(
    weights: Mapping[str, Tensor], file: Path
) -> tuple[Wav2Vec2Model, dict[str, str]]:
    """wav2vec2-base without weights, and the name in `file` for each of its own.

    The file may be of the speech recogniser around it, and of an older torch, which named the
    parts of a weight norm otherwise. Training alone uses `masked_spec_embed`.
    """
    with torch.device("meta"):
        module = Wav2Vec2Model(Wav2Vec2Config(mask_time_prob=0, mask_feature_prob=0))
    theirs_of = {_speech_encoder_name(theirs): theirs for theirs in weights}
    names = {ours: theirs_of.get(ours, ours) for ours in module.state_dict()}
    missing = [ours for ours, theirs in names.items() if theirs not in weights]
    if missing:
        looks_like = checkpoint.describe(weights)
        raise InputError(
            f"{file} is not wav2vec2-base-960h but {looks_like} ({len(missing)} tensors missing): "
            "download it again, or choose another file."
        )
    return module, names


def _speech_encoder_name(name: str) -> str:
    name = name.removeprefix("wav2vec2.")
    name = name.replace("conv.weight_g", "conv.parametrizations.weight.original0")
    return name.replace("conv.weight_v", "conv.parametrizations.weight.original1")


def load_speech_encoder(path: Path) -> Wav2Vec2Model:
    """wav2vec2, float32: a folder as transformers saves it, or a file of wav2vec2-base-960h."""
    if path.is_dir():
        return checkpoint.load_pretrained(Wav2Vec2Model, path)
    weights = checkpoint.read_weights(path)
    module, names = speech_encoder_layout(weights, path)
    checkpoint.load(module, weights, names, torch.float32, path)
    return module
