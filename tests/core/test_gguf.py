"""GGUF files are read as the numbers that the package gguf restores, or refused."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_convert import CONFIG, published, run

from hallo3_core.checkpoints import reading
from hallo3_core.checkpoints.gguf_file import read_gguf
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.errors import InputError
from hallo3_core.model.check import check
from hallo3_core.model.loading import load_transformers

gguf = pytest.importorskip("gguf")
KINDS = gguf.GGMLQuantizationType
SMALL = replace(CONFIG, layers=2, text_width=32, latent_height=4, latent_width=6)
Q4_K_BLOCK, Q4_K_BYTES = 256, 144


def packed(value: torch.Tensor) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """A tensor as converters for image models write it: matrices in Q8_0, the rest in float."""
    numbers = value.float().numpy()
    if value.ndim == 2 and value.shape[1] % 32 == 0:
        return gguf.quantize(numbers, KINDS.Q8_0), KINDS.Q8_0
    return numbers.astype(np.float16), KINDS.F16


def write(path: Path, tensors: dict[str, tuple]) -> Path:
    writer = gguf.GGUFWriter(path, "hallo3")
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    for step in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        step()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "hallo3.gguf"
    return write(path, {name: packed(value) for name, value in published(SMALL).items()})


def test_a_model_is_loaded_and_checked(file):
    exact, found = published(SMALL), read_weights(file)
    assert found.keys() == exact.keys()
    assert {value.dtype for value in found.values()} == {torch.bfloat16, torch.float16}
    for name, value in exact.items():
        assert (found[name].float() - value).norm() <= 0.01 * value.norm() + 1e-6
    denoiser, *_ = load_transformers(file)
    assert denoiser.config.layers == 2
    assert check(file).dtypes.keys() == {"bfloat16", "float16"}


def test_a_check_restores_the_numbers_once(file, monkeypatch):
    calls = []
    monkeypatch.setattr(reading, "read_gguf", lambda path: calls.append(path) or read_gguf(path))
    check(file)
    assert calls == [file]


def test_it_can_be_converted(file, tmp_path):
    dit, *_ = run(file, tmp_path, "nvfp4")
    assert check(dit).kind == "Hallo3 denoiser, converted"


def test_four_bits(tmp_path):
    """Q4_K: a block has two factors in float16, 12 bytes of scales and minima, and 256 numbers."""
    blocks = np.zeros((3, Q4_K_BYTES), np.uint8)
    blocks[:, :2] = np.array([0.5], np.float16).view(np.uint8)
    blocks[:, 4:8] = 2
    blocks[:, 16:] = 0x73
    path = write(tmp_path / "four.gguf", {"a.weight": (blocks, KINDS.Q4_K)})
    found = read_weights(path)["a.weight"]
    assert found.shape == (3, Q4_K_BLOCK)
    assert found[0, :32].unique().tolist() == [3.0]
    assert found[0, 32:64].unique().tolist() == [7.0]


def test_cut_or_damaged(file, tmp_path):
    content, generator = file.read_bytes(), random.Random(7)
    path, expected = tmp_path / "damaged.gguf", read_weights(file)
    header = content.index(b"norm_final.weight")
    for cut in (8, 100, *(generator.randrange(len(content)) for _ in range(18))):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"is a GGUF file that is damaged|is empty"):
            load_transformers(path)
    refused = 0
    for _ in range(50):
        spoiled = bytearray(content)
        spoiled[generator.randrange(4, header)] ^= 1 << generator.randrange(8)
        path.write_bytes(spoiled)
        try:
            load_transformers(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        found = read_weights(path)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert refused >= 30
