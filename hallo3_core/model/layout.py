"""The sizes of the networks in a file, and the names of their parameters in the file."""

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
from ..quantization.stored import beside
from .finding import TRANSFORMER_FILE

NETWORKS = (
    (Denoiser, DENOISER, TRANSFORMER_NAMES),
    (ReferenceNetwork, REFERENCE_NETWORK, TRANSFORMER_NAMES),
    (AudioProjector, AUDIO_PROJECTOR, AUDIO_PROJECTOR_NAMES),
)
"""The networks of the transformer file: class, prefix of the names there, and table of names."""

PARTS = ("denoiser", "reference network", "audio projector")
"""The names of `NETWORKS` in the metadata of converted files."""


def published_layout(
    shapes: Mapping[str, tuple[int, ...]],
    source: Path,
    latent_size: tuple[int, int] | None = None,
) -> tuple[Hallo3Config, list[dict[str, str]]]:
    """The sizes of a published checkpoint, and the names of its parameters.

    `shapes` has the shape of each of its tensors. `latent_size` is (height, width) of the latents;
    it is needed if the canvas is not 2:3. The names are a dict for each of `NETWORKS`, from our
    names to the names in the file. Raises `InputError` naming `source` if it is not Hallo3, if
    tensors are missing, or if their shapes do not fit together.
    """
    if not hallo3_parts(shapes):
        raise InputError(
            f"{source} is not {TRANSFORMERS} but {describe(shapes)}: choose "
            f"{Path(TRANSFORMER_FILE).name}, or hallo3_dit_*.safetensors from `convert`."
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


def published_weights(*states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dicts of all `NETWORKS` as one dict, under their published names."""
    weights: dict[str, Tensor] = {}
    for state, (_, prefix, table) in zip(states, NETWORKS, strict=True):
        names = published_names(state, prefix, table)
        weights |= {names[ours]: value for ours, value in state.items()}
    return weights


def _layouts(config: Hallo3Config, names: Collection[str], source: Path) -> list[dict[str, str]]:
    """For each of `NETWORKS`, map our names to the published names.

    Raises `InputError` if a published name is missing from `names`.
    """
    layouts = [
        published_names(network(config, device="meta").state_dict(), prefix, table)
        for network, prefix, table in NETWORKS
    ]
    require([name for layout in layouts for name in layout.values()], names, source)
    return layouts


def converted_layout(
    config: Hallo3Config, part: str, weights: Mapping[str, Tensor], file: Path
) -> dict[str, str]:
    """Map our names to the names in a converted file of `part`, one of `PARTS`.

    Raises `InputError` naming `file` if it has not exactly the tensors that the network needs.
    """
    network, prefix, table = NETWORKS[PARTS.index(part)]
    module = network(config, device="meta")
    layout = published_names(module.state_dict(), prefix, table)
    require_shapes(module, weights, layout, file)
    require_no_others(weights, layout, file)
    return layout


def converted_config(metadata: Mapping[str, str], file: Path) -> Hallo3Config:
    """The sizes in the metadata of a converted file. Raises `InputError` if it is damaged."""
    try:
        config = Hallo3Config(**json.loads(metadata["config"]))
        if all(isinstance(size, int) and size > 0 for size in astuple(config)):
            return config
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"The header of {file} is damaged: convert the published file again.")


def require_no_others(weights: Mapping[str, Tensor], layout: Mapping[str, str], file: Path) -> None:
    """Raise `InputError` if a converted file has tensors that its network does not have."""
    known = {*layout.values(), *(name for used in layout.values() for name in beside(used))}
    others = [name for name in weights if name not in known]
    if others:
        raise InputError(
            f"{file} has {len(others)} extra tensors, such as {others[0]}: its header is "
            "damaged, convert the published file again."
        )


def vae_layout(
    weights: Mapping[str, Tensor], file: Path
) -> tuple[AutoencoderKLCogVideoX, dict[str, str]]:
    """An autoencoder on the meta device with the sizes of `file`, and its names there.

    The names are a dict from the autoencoder's names to those in `weights`. Raises `InputError` if
    the file is another network or incomplete.
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
