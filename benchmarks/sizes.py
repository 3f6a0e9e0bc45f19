"""Sizes of the measured models, and checkpoints with random weights."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from hallo3_core import builtin
from hallo3_core.autoencoder import vae
from hallo3_core.checkpoints.names import ROTARY_TABLE
from hallo3_core.model.layout import NETWORKS, published_weights
from hallo3_core.network.config import LATENT_FRAMES, Hallo3Config

SIZES = {
    "built-in": builtin.CONFIG,
    "mid": Hallo3Config(layers=8, heads=8, latent_height=32, latent_width=48),
    "full": Hallo3Config(),
}
SMALL = replace(builtin.CONFIG, layers=2, latent_height=8, latent_width=12)
"""For tests in which the weights do not matter."""
VAES = {"built-in": builtin.VAE, "mid": builtin.VAE, "full": vae.RELEASED}


def make_checkpoint(path: Path, config: Hallo3Config, dtype: torch.dtype) -> None:
    """Random weights under the published names, in a .pt file."""
    states = [network(config, device="meta").state_dict() for network, *_ in NETWORKS]
    weights = {
        name: torch.empty(value.shape, dtype=dtype).normal_(std=0.02)
        for name, value in published_weights(*states).items()
    }
    rows = LATENT_FRAMES * config.frame_tokens
    weights[ROTARY_TABLE] = torch.zeros(rows, config.head_width, dtype=dtype)
    torch.save({"module": weights}, path)


def make_small_model(models: Path) -> dict[str, str]:
    """Write random weights to ComfyUI's folder `models`. Returns the inputs of the loaders."""
    file = models / "diffusion_models" / "small.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    make_checkpoint(file, SMALL, torch.bfloat16)
    return {"model_name": file.name} | make_small_vae(models)


def make_small_vae(models: Path) -> dict[str, str]:
    """Write only the autoencoder, as narrow as it can be."""
    file = models / "vae" / "small.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    network = vae.autoencoder(**builtin.VAE | {"block_out_channels": (8, 8, 16, 16)})
    save_file(network.state_dict(), file)
    return {"vae_name": file.name}
