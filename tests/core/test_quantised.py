"""Conversion to every quantised format, and what works with the results."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_convert import CONFIG, prediction, published, run, spoiled

from hallo3_core.checkpoints.reading import read_networks
from hallo3_core.checkpoints.weights_file import read_metadata
from hallo3_core.errors import InputError
from hallo3_core.memory.model_size import Weights
from hallo3_core.model import convert
from hallo3_core.model.loading import load_transformers
from hallo3_core.model.lora import add_lora
from hallo3_core.network.weight_formats import BY_NAME
from hallo3_core.quantization.layouts import LAYOUTS, ROWS, kitchen
from hallo3_core.quantization.stored import HEADER, MARK


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("published") / "mp_rank_00_model_states.pt"
    torch.save({"module": published(CONFIG)}, path)
    return path


NEAR = {
    "fp8_e4m3fn": 0.05,
    "fp8_e5m2": 0.08,
    "mxfp8": 0.05,
    "int8_tensorwise": 0.02,
    "nvfp4": 0.15,
    "asym_w4a8_int8": 0.12,
    "convrot_w4a4": 0.3,
}
"""How far a prediction may be off in each format."""


@pytest.mark.parametrize("dtype", NEAR)
def test_every_layout(source, tmp_path, dtype):
    """The prediction is near, matrices of the layers have marks, and the header repeats them."""
    dit, *_ = run(source, tmp_path, dtype)
    exact, near = (prediction(load_transformers(file)[0]) for file in (source, dit))
    assert NEAR[dtype] / 8 < (near - exact).norm() / exact.norm() < NEAR[dtype]
    weights, kind = load_file(dit), BY_NAME[dtype]
    marks = {
        name.removesuffix(f".{MARK}"): json.loads(bytes(value))
        for name, value in weights.items()
        if name.endswith(MARK)
    }
    assert {mark["format"] for mark in marks.values()} >= {kind.layout.name}
    assert json.loads(read_metadata(dit)[HEADER]) == {"format_version": "1.0", "layers": marks}
    whole = {name for name in weights if name.endswith("attention.query_key_value.weight")}
    assert whole
    assert all(name.removesuffix(".weight") in marks for name in whole)
    others = ("norm", "embed", "final_layer", "face_proj", "pos_emb")
    assert not any(word in layer for layer in marks for word in others if "layers" not in layer)


@pytest.mark.parametrize("dtype", NEAR)
def test_the_plan_counts_the_bytes_of_a_file(source, tmp_path, dtype):
    dit, reference, _ = run(source, tmp_path, dtype)
    weights = Weights.of(CONFIG, None, BY_NAME[dtype], 2)
    for file, planned in ((dit, weights.denoiser), (reference, weights.reference_network)):
        stored = load_file(file)
        size = sum(value.nbytes for name, value in stored.items() if not name.endswith(MARK))
        assert planned == size


@pytest.mark.parametrize("dtype", NEAR)
def test_a_lora_on_quantised_weights(source, tmp_path, dtype):
    """It changes them by about what it changes the others."""
    dit, *_ = run(source, tmp_path, dtype)
    layer, lora = "layers.1.mlp.up", tmp_path / "lora.safetensors"
    torch.manual_seed(3)
    up, down = torch.randn(512, 1) * 0.1, torch.randn(1, 128)
    name = f"diffusion_model.{layer}"
    save_file({f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down}, lora)
    denoiser, *_ = load_transformers(dit)
    before = denoiser.get_submodule(layer).quantized(torch.float32).dequantize()
    add_lora(denoiser, lora, 0.5)
    after = denoiser.get_submodule(layer).quantized(torch.float32).dequantize()
    change = 0.5 * up @ down
    assert (after - before - change).norm() < 0.25 * change.norm()


def test_a_large_matrix_is_quantised_as_a_small_one():
    """NVFP4 takes some rows after the other."""
    layout = LAYOUTS["nvfp4"]
    matrix = torch.randn(2 * ROWS + 256, 64, generator=torch.Generator().manual_seed(4))
    matrix[-1, -1] = 9
    expected = replace(layout, split=False).quantize(matrix, {})
    for end, part in layout.parts(layout.quantize(matrix, {})).items():
        assert torch.equal(part, layout.parts(expected)[end])


def test_a_matrix_of_zeros_is_not_quantised(source, tmp_path):
    """Published layers of ControlNets and adapters often begin with zeros."""
    path = tmp_path / "zeros.pt"
    torch.save(spoiled(source, value=torch.zeros_like), path)
    _, reference, _ = run(path, tmp_path / "models", "nvfp4")
    kept = [n for n, v in load_file(reference).items() if v.ndim == 2 and not v.any()]
    assert len(kept) == 1
    load_transformers(next((tmp_path / "models").rglob("*dit*")))


def test_what_is_quantised_is_not_converted_again(source, tmp_path):
    dit, *_ = run(source, tmp_path, "nvfp4")
    weights = load_file(dit)
    save_file(weights, other := tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="is already quantised: give the published file"):
        convert.plan(other, read_networks(other), "bf16")


def test_without_the_kernel_library(source, tmp_path, monkeypatch):
    dit, *_ = run(source, tmp_path, "nvfp4")
    monkeypatch.setitem(sys.modules, "comfy_kitchen.tensor", None)
    monkeypatch.setitem(sys.modules, "comfy_kitchen", None)
    kitchen.cache_clear()
    try:
        for work in (lambda: load_transformers(dit), lambda: run(source, tmp_path / "2", "mxfp8")):
            with pytest.raises(InputError, match="need the package comfy-kitchen"):
                work()
    finally:
        kitchen.cache_clear()
    assert not (tmp_path / "2").exists()
