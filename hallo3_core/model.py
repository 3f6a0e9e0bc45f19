"""All networks of one Hallo3 model, and how they are loaded from the published files."""

import json
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from transformers import Wav2Vec2Model

from . import checkpoint, vae
from .conditioning import AudioProjector
from .config import Hallo3Config
from .errors import InputError
from .memory_plan import WEIGHTS, MemoryPlan, plan_memory
from .placement import Placement
from .text import TextEncoder
from .transformer import Denoiser, ReferenceNetwork
from .wav2vec2 import load_speech_encoder
from .weights_file import read_metadata

TRANSFORMER_FILE = "hallo3/1/mp_rank_00_model_states.pt"
VAE_FILE = "cogvideox-5b-i2v-sat/vae/3d-vae.pt"
SPEECH_FOLDER = "wav2vec/wav2vec2-base-960h"
TEXT_FOLDER = "t5-v1_1-xxl"
COMFYUI_DOWNLOADS = ("vae/hallo3/3d-vae.pt", "audio_encoders/wav2vec2-base-960h")
COMFYUI_FILES = (
    ("vae/hallo3_vae_*.safetensors", COMFYUI_DOWNLOADS[0]),
    ("audio_encoders/hallo3_wav2vec2.safetensors", COMFYUI_DOWNLOADS[1]),
    ("text_encoders/t5xxl_*.safetensors", "text_encoders/t5-v1_1-xxl"),
)
"""In ComfyUI's `models`: autoencoder, speech encoder and text encoder, the best place first."""

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
    """The networks of one model; `text_encoder` loads the prompt's, which few need.

    `tiles` a side are decoded one after the other; the denoiser sees `rows` at once, 2 being both
    branches of guidance.
    """

    denoiser: Denoiser
    reference_network: ReferenceNetwork
    audio_projector: AudioProjector
    vae: AutoencoderKLCogVideoX
    speech_encoder: Wav2Vec2Model
    text_encoder: Callable[[], TextEncoder]
    placement: Placement = field(default_factory=Placement)
    tiles: int = 1
    rows: int = 1

    @property
    def config(self) -> Hallo3Config:
        return self.denoiser.config

    @property
    def device(self) -> torch.device:
        return self.placement.device

    @property
    def dtype(self) -> torch.dtype:
        return self.denoiser.embed.position.dtype

    def working(self, *networks: nn.Module) -> AbstractContextManager:
        """Have networks on the device for a while, if they do not stay there."""
        return self.placement.working(*networks)

    def to(self, dtype: torch.dtype) -> "Hallo3":
        """All but the speech encoder as `dtype`."""
        for network in (self.denoiser, self.reference_network, self.audio_projector, self.vae):
            nn.Module.to(network, dtype)  # past diffusers' own, which warns of an empty list
        return self

    def placed(self, device: torch.device, plan: MemoryPlan | None = None) -> "Hallo3":
        """The model on a device, all of it or as planned."""
        placement = Placement(device, plan is not None and plan.in_turn)
        for network, stage in ((self.denoiser, "sampling"), (self.reference_network, "portrait")):
            placement.add(network, network.layers[: plan.streamed(stage)] if plan else ())
        for network in (self.audio_projector, self.vae, self.speech_encoder):
            placement.add(network)
        tiles, rows = (plan.tiles, plan.rows) if plan else (1, 1)
        return replace(self, placement=placement, tiles=tiles, rows=rows)

    @classmethod
    def from_folder(cls, path: Path, dtype: torch.dtype = torch.float32) -> "Hallo3":
        """The model in a folder laid out like the published download, or around its weights file.

        Raises `InputError` for a file that is missing or is not what it should be.
        """
        files, opened = open_model(path)
        transformers = fill_transformers(opened, dtype, files.transformers)
        speech_encoder = load_speech_encoder(files.speech_encoder)
        wanted, found = transformers[0].config.audio_channels, speech_encoder.config.hidden_size
        if found != wanted:
            raise InputError(
                f"The speech encoder in {files.speech_encoder} has {found} channels and the "
                f"model takes {wanted}: put wav2vec2-base-960h there."
            )
        return cls(
            *transformers,
            load_vae(files.vae, dtype),
            speech_encoder,
            lambda: TextEncoder.load(files.text_encoder, dtype, transformers[0].config.text_width),
        )


def plan_for(path: Path | None, kind: str, free: float, offload: bool = True) -> MemoryPlan:
    """The memory plan of the model at `path`, or of the released one (None); see `plan_memory`.

    Weights in fp8 stay so, whatever `kind`, and the work is done in the numbers of `kind`.
    """
    if path is None:
        config = Hallo3Config()
        with torch.device("meta"):
            autoencoder = vae.autoencoder(**vae.RELEASED)
        return plan_memory(config, autoencoder, kind, free, offload)
    files, (weights, config, layouts) = open_model(path)
    autoencoder, _ = vae_layout(checkpoint.read_weights(files.vae), files.vae)
    scaled = any(f"{theirs}_scale" in weights for theirs in layouts[0].values())
    size = WEIGHTS[kind][1]
    return plan_memory(config, autoencoder, "fp8" if scaled else kind, free, offload, size)


class Files(NamedTuple):
    """Where the networks of a model lie, and the folder around them."""

    transformers: Path
    vae: Path
    speech_encoder: Path
    text_encoder: Path
    root: Path


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
        published = [path / "diffusion_models" / TRANSFORMER_FILE, path / TRANSFORMER_FILE]
        found = [*converted, *filter(Path.is_file, published)]
        if not found:
            raise InputError(
                f"There is no Hallo3 in {path}: give the folder that has {TRANSFORMER_FILE} or "
                "diffusion_models/hallo3_dit_*.safetensors in it."
            )
        path = found[0]
    file = path.resolve()
    for folder in file.parents:
        if folder.name == "diffusion_models":
            root = folder.parent
            return Files(file, *(_first(root, places) for places in COMFYUI_FILES), root)
    folder = file.parent.parent.parent
    text = _first(folder, ("t5xxl_*.safetensors", TEXT_FOLDER))
    return Files(file, folder / VAE_FILE, folder / SPEECH_FOLDER, text, folder)


def _first(folder: Path, patterns: tuple[str, ...]) -> Path:
    """The first file of some patterns, or the place where it is missing."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return next(found, folder / patterns[-1])


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
    if not checkpoint.hallo3_parts(shapes):
        raise InputError(
            f"{source} is not {checkpoint.TRANSFORMERS} but {checkpoint.describe(shapes)}: choose "
            f"{Path(TRANSFORMER_FILE).name}, or hallo3_dit_*.safetensors as convert makes it."
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
        config, layouts = published_layout(checkpoint.shapes(weights), file, latent_size)
        for (kind, *_), layout in zip(NETWORKS, layouts, strict=True):
            checkpoint.require_shapes(kind(config, device="meta"), weights, layout, file)
        return Opened(weights, config, layouts)
    if network != PARTS[0]:
        raise InputError(
            f"{file} is {checkpoint.describe(weights)}, converted: choose the denoiser, "
            "hallo3_dit_*.safetensors."
        )
    config = converted_config(metadata, file)
    others = [_companion(file, metadata, part) for part in PARTS[1:]]
    read = {file: weights} | {other: checkpoint.read_weights(other) for other in others}
    layouts = [
        converted_layout(config, part, tensors, path)
        for part, (path, tensors) in zip(PARTS, read.items(), strict=True)
    ]
    return Opened(dict(ChainMap(*read.values())), config, layouts)


def converted_layout(
    config: Hallo3Config, part: str, weights: Mapping[str, Tensor], file: Path
) -> dict[str, str]:
    """Our name to that in a converted file for the network that is a part of Hallo3.

    Raises `InputError` naming `file` if it has not just what the network needs.
    """
    network, prefix, table = NETWORKS[PARTS.index(part)]
    module = network(config, device="meta")
    layout = checkpoint.published_names(module.state_dict(), prefix, table)
    checkpoint.require_shapes(module, weights, layout, file)
    require_no_others(weights, layout, file)
    return layout


def converted_config(metadata: Mapping[str, str], file: Path) -> Hallo3Config:
    """The sizes in the header of a converted file."""
    try:
        config = Hallo3Config(**json.loads(metadata["config"]))
        if all(isinstance(size, int) and size > 0 for size in astuple(config)):
            return config
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"{file} has a header that is damaged: convert again.")


def scale_names(name: str) -> tuple[str, str]:
    """The scale of a tensor in ComfyUI's scaled fp8 files, and the mark that it is there."""
    return f"{name}_scale", f"{name.removesuffix('weight')}comfy_quant"


def require_no_others(weights: Mapping[str, Tensor], layout: Mapping[str, str], file: Path) -> None:
    """Raise `InputError` if a converted file has tensors that its network has not."""
    used = layout.values()
    known = {*used, *(beside for name in used for beside in scale_names(name))}
    others = [name for name in weights if name not in known]
    if others:
        raise InputError(
            f"{file} has {len(others)} tensors too many, such as {others[0]}: its header is "
            "damaged, convert again."
        )


def _companion(file: Path, metadata: Mapping[str, str], network: str) -> Path:
    """The file beside `file` that was converted from the same source, at best to the same dtype."""
    others = {other: read_metadata(other) for other in sorted(file.parent.glob("*.safetensors"))}
    fitting = [
        other
        for other, found in others.items()
        if found.get("hallo3_network") == network
        and found.get("source_sha256") == metadata.get("source_sha256")
    ]
    if not fitting:
        raise InputError(
            f"The {network} that was made with {file.name} is not in {file.parent}: put the "
            f"hallo3_{network.split()[0]}_*.safetensors of the same conversion there."
        )
    return min(fitting, key=lambda other: others[other].get("dtype") != metadata.get("dtype"))


def open_model(path: Path) -> tuple[Files, Opened]:
    """The files of a model and its transformers, opened, before anything is loaded.

    Raises `InputError` if the transformers are not Hallo3's, or if another network that every
    video needs is not there.
    """
    files = find_files(path)
    opened = open_transformers(files.transformers)
    needed = {"autoencoder": files.vae, "speech encoder": files.speech_encoder}
    for network, place in needed.items():
        if not place.exists():
            raise InputError(
                f"The {network} of the model is not at {place}: bring it there with `python -m "
                "hallo3_core download`."
            )
    return files, opened


def load_transformers(
    file: Path, dtype: torch.dtype = torch.float32, latent_size: tuple[int, int] | None = None
) -> Transformers:
    """Denoiser, reference network and audio projector from a published checkpoint."""
    return fill_transformers(open_transformers(file, latent_size), dtype, file)


def fill_transformers(opened: Opened, dtype: torch.dtype, file: Path) -> Transformers:
    """The same from what was opened; `file` is named in errors."""
    networks = []
    for (network, *_), layout in zip(NETWORKS, opened.layouts, strict=True):
        module = network(opened.config, device="meta")
        checkpoint.load(module, opened.weights, layout, dtype, file)
        networks.append(module)
    return tuple(networks)


def vae_layout(
    weights: Mapping[str, Tensor], file: Path
) -> tuple[AutoencoderKLCogVideoX, dict[str, str]]:
    """An autoencoder without weights for those of `file`, and their name for each of its own.

    Raises `InputError` if it is another network or not whole.
    """
    looks_like = checkpoint.describe(weights)
    if looks_like != checkpoint.VAE:
        raise InputError(f"{file} is not the CogVideoX VAE but {looks_like}: choose 3d-vae.pt.")
    names = {ours: theirs for theirs, ours in vae.to_diffusers_names(list(weights)).items()}
    shapes = {ours: weights[theirs].shape for ours, theirs in names.items()}
    try:
        with torch.device("meta"):
            module = vae.autoencoder(**vae.config_from_shapes(shapes))
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{file} is not a whole CogVideoX VAE: download 3d-vae.pt again."
        ) from error
    return module, {ours: names.get(ours, ours) for ours in module.state_dict()}


def load_vae(file: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKLCogVideoX:
    """The video autoencoder from a file of the published or of diffusers' names."""
    weights = checkpoint.read_weights(file)
    module, names = vae_layout(weights, file)
    checkpoint.load(module, weights, names, dtype, file)
    return module
