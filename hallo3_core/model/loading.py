"""Load the networks of a model from its files."""

from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..checkpoints.filling import fill, require_shapes
from ..checkpoints.reading import read_networks, read_weights, shapes_of
from ..checkpoints.recognise import describe
from ..checkpoints.weights_file import read_metadata
from ..errors import InputError
from ..network.conditioning import AudioProjector
from ..network.config import Hallo3Config
from ..network.transformer import Denoiser, ReferenceNetwork, empty_networks
from .finding import Files, find_files
from .layout import (
    NETWORKS,
    PARTS,
    converted_config,
    converted_layout,
    published_layout,
    vae_layout,
)

Transformers = tuple[Denoiser, ReferenceNetwork, AudioProjector]


class Opened(NamedTuple):
    """The transformers' weights, memory-mapped, and their sizes.

    `layouts` has a dict for each of `NETWORKS`, from our names to the names in `weights`.
    """

    weights: dict[str, Tensor]
    config: Hallo3Config
    layouts: list[dict[str, str]]


def open_transformers(file: Path, latent_size: tuple[int, int] | None = None) -> Opened:
    """Open a published checkpoint, or a converted denoiser and the files converted with it.

    `latent_size` is that of `published_layout`. Raises `InputError` if a file is missing, damaged,
    incomplete or not Hallo3's.
    """
    weights = read_networks(file)
    metadata = read_metadata(file)
    network = metadata.get("hallo3_network")
    if network is None:
        config, layouts = published_layout(shapes_of(weights), file, latent_size)
        for (kind, *_), layout in zip(NETWORKS, layouts, strict=True):
            require_shapes(kind(config, device="meta"), weights, layout, file)
        return Opened(weights, config, layouts)
    if network != PARTS[0]:
        raise InputError(
            f"{file} is {describe(weights)}, converted: choose the denoiser, "
            "hallo3_dit_*.safetensors."
        )
    config = converted_config(metadata, file)
    others = [_companion(file, metadata, part) for part in PARTS[1:]]
    read = {file: weights} | {other: read_networks(other) for other in others}
    layouts = [
        converted_layout(config, part, tensors, path)
        for part, (path, tensors) in zip(PARTS, read.items(), strict=True)
    ]
    return Opened(dict(ChainMap(*read.values())), config, layouts)


def _companion(file: Path, metadata: Mapping[str, str], network: str) -> Path:
    """The converted file of `network` in the folder of `file`, from the same source.

    A file of the same dtype comes first. Raises `InputError` if there is none.
    """
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
    """Find the files of a model and open its transformers. No network is loaded yet.

    Raises `InputError` as `find_files` and `open_transformers` do, or if the autoencoder or the
    speech encoder is missing.
    """
    files = find_files(path)
    opened = open_transformers(files.transformers)
    needed = {"autoencoder": files.vae, "speech encoder": files.speech_encoder}
    for network, place in needed.items():
        if not place.exists():
            raise InputError(
                f"The {network} of the model is not at {place}: get it with `python -m "
                "hallo3_core download`."
            )
    return files, opened


def load_transformers(
    file: Path, dtype: torch.dtype = torch.float32, latent_size: tuple[int, int] | None = None
) -> Transformers:
    """Load the denoiser, reference network and audio projector.

    `file` and `latent_size` are those of `open_transformers`, which says what errors it raises.
    """
    return fill_transformers(open_transformers(file, latent_size), dtype, file)


def fill_transformers(opened: Opened, dtype: torch.dtype, file: Path) -> Transformers:
    """Load the transformers from opened files, as `dtype`. `file` is the file named in errors."""
    networks = empty_networks(opened.config)
    for network, layout in zip(networks, opened.layouts, strict=True):
        fill(network, opened.weights, layout, dtype, file)
    return networks


def load_vae(file: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKLCogVideoX:
    """Load the video autoencoder from a file with the published names or diffusers' names.

    Raises `InputError` if the file is damaged, incomplete or another network.
    """
    weights = read_weights(file)
    module, names = vae_layout(weights, file)
    fill(module, weights, names, dtype, file)
    return module
