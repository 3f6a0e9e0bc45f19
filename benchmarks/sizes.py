"""Sizes of models that are measured, and their checkpoints with random weights."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from hallo3_core import builtin, checkpoint, vae
from hallo3_core.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.model import NETWORKS

SIZES = {
    "built-in": builtin.CONFIG,
    "mid": Hallo3Config(layers=8, heads=8, latent_height=32, latent_width=48),
    "full": Hallo3Config(),
}
SMALL = replace(builtin.CONFIG, layers=2, latent_height=8, latent_width=12)
"""Where the way through the networks counts and not what they have learnt."""
VAES = {"built-in": builtin.VAE, "mid": builtin.VAE, "full": vae.RELEASED}


def make_checkpoint(path: Path, config: Hallo3Config, dtype: torch.dtype) -> None:
    """Random weights under the published names, in a .pt file."""
    weights = {}
    for network, prefix, table in NETWORKS:
        state = network(config, device="meta").state_dict()
        names = checkpoint.published_names(state, prefix, table)
        for ours, value in state.items():
            weights[names[ours]] = torch.empty(value.shape, dtype=dtype).normal_(std=0.02)
    rows = LATENT_FRAMES * config.frame_tokens
    weights[checkpoint.ROTARY_TABLE] = torch.zeros(rows, config.head_width, dtype=dtype)
    torch.save({"module": weights}, path)


def make_small_model(models: Path) -> dict[str, str]:
    """Files of random weights in ComfyUI's folder `models`, as inputs of the loaders."""
    names = {"model_name": "small.pt", "vae_name": "small.safetensors"}
    network = vae.autoencoder(**builtin.VAE | {"block_out_channels": (8, 8, 16, 16)})
    for folder in ("diffusion_models", "vae"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    make_checkpoint(models / "diffusion_models" / names["model_name"], SMALL, torch.bfloat16)
    save_file(network.state_dict(), models / "vae" / names["vae_name"])
    return names
