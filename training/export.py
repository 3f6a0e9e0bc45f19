"""Trained networks as files that the pack reads."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.model import convert
from hallo3_core.model.finding import TRANSFORMER_FILE
from hallo3_core.model.layout import published_weights

from .networks import Networks


def save_networks(networks: Networks, run: Path, folder: Path) -> list[Path]:
    """Write a checkpoint in the published format to `run`, and the converted files to `folder`."""
    parts = (networks.denoiser, networks.reference_network, networks.audio_projector)
    weights = published_weights(*(network.state_dict() for network in parts))
    source = run / TRANSFORMER_FILE
    source.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"module": weights}, source)
    plan = convert.plan(source, read_weights(source), "bf16")
    return convert.convert(plan, folder, lambda done: None)


def save_half(network: nn.Module, file: Path) -> None:
    """Write any other network in bf16, under its own names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: p.bfloat16() for name, p in network.state_dict().items()}, file)


def save_lora(denoiser: nn.Module, file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the LoRA of a denoiser, under the names that ComfyUI's LoraLoader reads."""
    additions = {
        "diffusion_model." + name.replace(".default.", "."): value.contiguous()
        for name, value in denoiser.state_dict().items()
        if "lora_" in name
    }
    save_file(additions, file, metadata)
