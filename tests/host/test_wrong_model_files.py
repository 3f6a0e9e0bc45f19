"""Wrong files in the loaders are explained in one sentence."""

import re
import sys

import pytest
import torch
from comfyui import PACK, Graph, fails
from safetensors.torch import load_file, save_file

from parity import FIXTURES

WEIGHTS = FIXTURES / "transformer_weights.safetensors"

LOADERS = {
    "Hallo3LoadDiT": ("diffusion_models", "model_name", {"weight_dtype": "default"}),
    "Hallo3LoadVAE": ("vae", "vae_name", {}),
    "Hallo3LoadSpeechEncoder": ("audio_encoders", "encoder_name", {}),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_wrong_files_in_the_loaders(host, loader):
    """The sentence names the file, and the type of the error is shown without a path."""
    folder, choice, others = LOADERS[loader]
    place = host.base / "models" / folder
    place.mkdir(parents=True, exist_ok=True)
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, place / "flux.safetensors")
    (place / "picture.safetensors").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    (place / "empty.pt").write_bytes(b"")
    for name, says in {
        "flux.safetensors": "is not .* but a Flux model: choose",
        "picture.safetensors": "is a picture, not weights: choose another file",
        "empty.pt": "is empty: download it again",
    }.items():
        graph = Graph()
        graph.keep(graph(loader, **{choice: name}, **others))
        fails(host, graph, f"{place / name} {says}")
        (kind,) = (
            data["exception_type"] for event, data in host.events if event == "execution_error"
        )
        assert kind == "hallo3_core.errors.InputError"


def test_a_quantised_denoiser(host, parts):
    """It has all names and shapes, but integers."""
    weights, names = load_file(WEIGHTS), "hallo3_dit_int8.safetensors"
    name = "model.diffusion_model.transformer.layers.0.mlp.dense_h_to_4h.weight"
    weights[name] = weights[name].to(torch.int8)
    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / names)
    graph = Graph()
    graph.keep(graph("Hallo3LoadDiT", model_name=names, weight_dtype="default"))
    fails(host, graph, rf"has 1 integer tensors \({name}\)")


def test_every_error_of_ours_is_shown_without_a_path(host):
    """In ComfyUI, the modules of the pack have its path in their names."""
    errors = next(
        module
        for name, module in sys.modules.items()
        if name.endswith(f"{PACK.name}.hallo3_core.errors")
    )
    kinds = [errors.InputError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    shown = [host.execution.full_type_name(kind) for kind in kinds]
    assert all(re.fullmatch(r"hallo3_core(\.\w+)+", name) for name in shown), shown
    assert "hallo3_core.animate.NotDecoded" in shown
