"""The text encoder, from every kind of file that people have."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from hallo3_core.errors import InputError
from hallo3_core.text import TextEncoder
from small_model import save_t5


@pytest.fixture
def folder(tmp_path):
    return save_t5(tmp_path / "t5-v1_1-xxl")


def single_file(folder, dtype=torch.float32, **others):
    weights = TextEncoder.load(folder, torch.float32).encoder.state_dict()
    weights = {
        name: value.to(dtype) for name, value in weights.items() if "embed_tokens" not in name
    }
    file = folder.parent / "t5xxl.safetensors"
    save_file(weights | others, file)
    return file


def test_a_single_file_is_the_same_as_the_folder(folder):
    prompt = "a woman speaks"
    whole = TextEncoder.load(folder, torch.float32)(prompt)
    assert whole.shape == (1, 226, 64)
    file = single_file(folder)
    assert torch.equal(TextEncoder.load(file, torch.float32)(prompt), whole)


def test_fp8_is_near(folder):
    whole = TextEncoder.load(folder, torch.float32)("a woman")
    near = TextEncoder.load(single_file(folder, torch.float8_e4m3fn), torch.float32)("a woman")
    assert 0 < (near - whole).norm() / whole.norm() < 0.1


def test_scaled_fp8_is_multiplied_by_its_scale(folder):
    """The scales have the names that ComfyUI's older scaled files use."""
    whole = TextEncoder.load(folder, torch.float32)("a woman")
    file = single_file(folder)
    weights = TextEncoder.load(file, torch.float32).encoder.state_dict()
    name = "encoder.block.1.layer.1.DenseReluDense.wo"
    scaled = {
        f"{name}.weight": (weights[f"{name}.weight"] * 100).to(torch.float8_e4m3fn),
        f"{name}.scale_weight": torch.tensor([0.01]),
    }
    near = TextEncoder.load(single_file(folder, **scaled), torch.float32)("a woman")
    assert 0 < (near - whole).norm() / whole.norm() < 0.05


def test_a_long_prompt_is_cut_with_a_warning(folder, caplog):
    encoder = TextEncoder.load(folder, torch.float32)
    with caplog.at_level(logging.WARNING):
        long = encoder("a " * 300)
    assert "what comes after 226 is cut off" in caplog.text
    assert torch.equal(long, encoder("a " * 400))
    caplog.clear()
    encoder("a woman")
    assert not caplog.text


def test_a_file_without_a_tokenizer(folder):
    file = single_file(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"There is no T5 tokenizer in .*: put"):
        TextEncoder.load(file, torch.float32)


def test_a_file_that_is_no_t5(folder, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"double_blocks.0.weight": torch.zeros(2)}, file)
    with pytest.raises(InputError, match=r"is not a T5 v1\.1 encoder but a Flux model"):
        TextEncoder.load(file, torch.float32)
