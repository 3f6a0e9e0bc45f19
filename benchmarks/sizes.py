"""Sizes of models that are measured, and their checkpoints with random weights."""

from pathlib import Path

import torch

from hallo3_core import builtin, checkpoint, vae
from hallo3_core.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.model import NETWORKS

SIZES = {
    "built-in": builtin.CONFIG,
    "mid": Hallo3Config(layers=8, heads=8, latent_height=32, latent_width=48),
    "full": Hallo3Config(),
}
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
