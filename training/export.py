"""Trained networks as files of the pack's own format."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from hallo3_core.checkpoints.names import published_names
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.model import convert
from hallo3_core.model.finding import TRANSFORMER_FILE
from hallo3_core.model.layout import NETWORKS

from .networks import Networks


def save_networks(networks: Networks, run: Path, folder: Path) -> list[Path]:
    """The published checkpoint in `run`, and its conversion in `folder`."""
    weights = {}
    parts = (networks.denoiser, networks.reference_network, networks.audio_projector)
    for network, (_, prefix, table) in zip(parts, NETWORKS, strict=True):
        state = network.state_dict()
        names = published_names(state, prefix, table)
        weights |= {names[ours]: value for ours, value in state.items()}
    source = run / TRANSFORMER_FILE
    source.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"module": weights}, source)
    plan = convert.plan(source, read_weights(source), "bf16")
    return convert.convert(plan, folder, lambda done: None)


def save_half(network: nn.Module, file: Path) -> None:
    """Any other network, in bf16 and its own names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: p.bfloat16() for name, p in network.state_dict().items()}, file)


def save_lora(denoiser: nn.Module, file: Path) -> None:
    """The low-rank additions to a denoiser, in the names that ComfyUI's LoraLoader knows."""
    additions = {
        "diffusion_model." + name.replace(".default.", "."): value.contiguous()
        for name, value in denoiser.state_dict().items()
        if "lora_" in name
    }
    save_file(additions, file)
