"""The sizes of the networks in a file, and its name for each of their parameters."""

import json
from collections.abc import Collection, Mapping
from dataclasses import astuple
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..autoencoder import vae
from ..checkpoints.filling import require, require_shapes
from ..checkpoints.names import (
    AUDIO_PROJECTOR,
    AUDIO_PROJECTOR_NAMES,
    DENOISER,
    REFERENCE_NETWORK,
    ROTARY_TABLE,
    TRANSFORMER_NAMES,
    layer_count,
    published_names,
)
from ..checkpoints.recognise import TRANSFORMERS, VAE, describe, hallo3_parts
from ..errors import InputError
from ..network.conditioning import AudioProjector
from ..network.config import Hallo3Config
from ..network.transformer import Denoiser, ReferenceNetwork
from .finding import TRANSFORMER_FILE

NETWORKS = (
    (Denoiser, DENOISER, TRANSFORMER_NAMES),
    (ReferenceNetwork, REFERENCE_NETWORK, TRANSFORMER_NAMES),
    (AudioProjector, AUDIO_PROJECTOR, AUDIO_PROJECTOR_NAMES),
)
"""The networks of the transformer file, and how their parameters are named there."""

PARTS = ("denoiser", "reference network", "audio projector")
"""What a converted file of each of `NETWORKS` says it is."""


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
    if not hallo3_parts(shapes):
        raise InputError(
            f"{source} is not {TRANSFORMERS} but {describe(shapes)}: choose "
            f"{Path(TRANSFORMER_FILE).name}, or hallo3_dit_*.safetensors as convert makes it."
        )
    layouts = _layouts(Hallo3Config(layers=layer_count(shapes)), shapes, source)
    denoiser, _, audio_projector = (
        {ours: shapes[theirs] for ours, theirs in layout.items()} for layout in layouts
    )
    rotary_rows = shapes.get(ROTARY_TABLE, [0])[0]
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
        published_names(network(config, device="meta").state_dict(), prefix, table)
        for network, prefix, table in NETWORKS
    ]
    require([name for layout in layouts for name in layout.values()], names, source)
    return layouts


def converted_layout(
    config: Hallo3Config, part: str, weights: Mapping[str, Tensor], file: Path
) -> dict[str, str]:
    """Our name to that in a converted file for the network that is a part of Hallo3.

    Raises `InputError` naming `file` if it has not just what the network needs.
    """
    network, prefix, table = NETWORKS[PARTS.index(part)]
    module = network(config, device="meta")
    layout = published_names(module.state_dict(), prefix, table)
    require_shapes(module, weights, layout, file)
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


def vae_layout(
    weights: Mapping[str, Tensor], file: Path
) -> tuple[AutoencoderKLCogVideoX, dict[str, str]]:
    """An autoencoder without weights for those of `file`, and their name for each of its own.

    Raises `InputError` if it is another network or not whole.
    """
    looks_like = describe(weights)
    if looks_like != VAE:
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
