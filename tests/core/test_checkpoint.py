import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import FIXTURES
from hallo3_core import checkpoint
from hallo3_core.errors import InputError
from hallo3_core.model import NETWORKS, load_transformers, load_vae, published_layout

WEIGHTS = FIXTURES / "transformer_weights.safetensors"


@pytest.fixture(scope="module")
def manifest() -> dict[str, tuple[int, ...]]:
    shapes = json.loads((FIXTURES / "full_manifest.json").read_text())
    return {name: tuple(shape) for name, shape in shapes.items()}


def test_full_size_networks_have_the_published_names_and_shapes(manifest):
    config, layouts = published_layout(manifest, Path("manifest"))
    assert config == type(config)()
    used = {}
    for (network, *_), layout in zip(NETWORKS, layouts, strict=True):
        for ours, value in network(config, device="meta").state_dict().items():
            used[layout[ours]] = tuple(value.shape)
    left = manifest.keys() - used.keys()
    assert used == {name: manifest[name] for name in used}
    assert len(used) == 2232
    assert all(any(part in name for part in checkpoint.UNNEEDED) for name in left)


def test_full_size_networks_have_the_published_number_of_parameters(manifest):
    config, _ = published_layout(manifest, Path("manifest"))
    counts = [
        sum(value.numel() for value in network(config, device="meta").parameters()) / 1e9
        for network, *_ in NETWORKS
    ]
    denoiser, reference_network, audio_projector = counts
    assert denoiser + audio_projector == pytest.approx(8.92, abs=0.01)
    assert reference_network == pytest.approx(5.63, abs=0.01)
    assert audio_projector == pytest.approx(1.24, abs=0.01)


def test_layers_come_from_the_injected_operations(manifest):
    config, _ = published_layout(manifest, Path("manifest"))
    made = []

    class Operations:
        """torch.nn's layers, noting each one made."""

    for kind in ("Linear", "LayerNorm", "Conv1d", "Conv2d"):
        original = getattr(torch.nn, kind)

        def build(*args, original=original, **kwargs):
            made.append(layer := original(*args, **kwargs))
            return layer

        setattr(Operations, kind, staticmethod(build))
    for network, *_ in NETWORKS:
        module = network(config, Operations, device="meta")
        outside = dict(module.named_parameters())
        for name, child in module.named_modules():
            if child in made:
                for parameter, _ in child.named_parameters():
                    del outside[f"{name}.{parameter}"]
        assert set(outside) <= {"embed.position"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"", "damaged or cut short"),
        (b"\x00" * 100, "damaged or cut short"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_that_are_no_weights(tmp_path, content, says, suffix):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says):
        checkpoint.read_weights(file)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_weights(tmp_path, share, suffix):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".pt":
        torch.save({"module": load_file(WEIGHTS)}, whole)
    else:
        whole.write_bytes(WEIGHTS.read_bytes())
    file = tmp_path / f"cut{suffix}"
    file.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    with pytest.raises(InputError, match="damaged or cut short"):
        load_transformers(file)


def test_missing_tensors_are_named_and_counted(tmp_path):
    weights = load_file(WEIGHTS)
    missing = [
        "model.diffusion_model.mixins.patch_embed.proj.weight",
        "model.diffusion_model.transformer.layers.1.audio_attn.query.bias",
        "ref_model.diffusion_model.time_embed.0.bias",
    ]
    for name in missing:
        del weights[name]
    save_file(weights, file := tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"lacks 3 of 152 tensors") as error:
        load_transformers(file)
    assert all(name in str(error.value) for name in missing)


def test_a_tensor_of_another_shape_is_named(tmp_path):
    weights = load_file(WEIGHTS)
    name = "ref_model.diffusion_model.transformer.layers.0.mlp.dense_h_to_4h.bias"
    weights[name] = weights[name][:-1].clone()
    save_file(weights, file := tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=rf"{name} is \(511,\), not \(512,\)"):
        load_transformers(file)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("denoising_unet.conv_in.weight", "Hallo or Hallo2"),
        ("conditioner.embedders.0.transformer.weight", "Stable Diffusion XL"),
        ("blocks.0.cross_attn.q.weight", "Wan"),
        ("transformer_blocks.0.attn1.to_q.weight", "CogVideoX"),
        ("model.diffusion_model.mixins.patch_embed.proj.weight", "CogVideoX"),
        ("wav2vec2.feature_extractor.weight", "wav2vec2"),
        ("something.else", "1 tensors: something.else"),
    ],
)
def test_other_models_are_recognised(tmp_path, name, says):
    save_file({name: torch.zeros(1)}, file := tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="is not Hallo3 but") as error:
        load_transformers(file)
    assert says in str(error.value)


def test_the_transformers_are_not_taken_for_a_vae():
    with pytest.raises(InputError, match="is not the CogVideoX VAE but the Hallo3 transformers"):
        load_vae(WEIGHTS)
