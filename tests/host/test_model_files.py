"""The denoiser saved by ComfyUI, converted by us, and loaded again."""

from pathlib import Path

import pytest
import torch
from comfyui import Host, Parts, build
from safetensors.torch import load_file
from test_segments import sample

from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.model.convert import convert, plan


@pytest.fixture(scope="module")
def folder(host: Host) -> Path:
    path = host.base / "models" / "diffusion_models"
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def saved(host: Host, folder: Path) -> Path:
    """The built-in model as ModelSave writes it."""
    parts = build(seconds=1)
    parts.graph("ModelSave", model=parts.model, filename_prefix="diffusion_models/saved")
    host.run(parts.graph)
    (file,) = (host.base / "output" / "diffusion_models").glob("saved*.safetensors")
    return file.rename(folder / "saved.safetensors")


@pytest.fixture(scope="module")
def published(saved: Path) -> Path:
    """The same in bf16, which is the format of the released model."""
    path = saved.with_name("mp_rank_00_model_states.pt")
    weights = {name: value.bfloat16() for name, value in load_file(saved).items()}
    torch.save({"module": weights}, path)
    return path


def latents(host: Host, parts: Parts) -> torch.Tensor:
    parts.graph.keep(sample(parts, 0))
    (latent,) = host.run(parts.graph)
    return latent["samples"]


def test_a_saved_model_is_loaded_again(host, saved):
    assert any(name.startswith("ref_model.") for name in load_file(saved))
    expected = latents(host, build(seconds=1))
    assert torch.equal(latents(host, build(seconds=1, model_name=saved.name)), expected)


@pytest.mark.parametrize(("dtype", "error"), [("bf16", 0), ("fp8_e4m3fn", 0.05)])
def test_a_converted_model_is_loaded(host, published, folder, dtype, error):
    """In bf16 it gives the same numbers as the published file; in fp8 nearly the same."""
    job = plan(published, read_weights(published), dtype)
    dit, *_ = convert(job, folder.parent, lambda done: None)
    expected = latents(host, build(seconds=1, model_name=published.name))
    found = latents(host, build(seconds=1, model_name=dit.name))
    assert (found - expected).norm() <= error * expected.norm()
    if error:
        assert not torch.equal(found, expected)
