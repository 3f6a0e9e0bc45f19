import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2Model

from hallo3_core.checkpoints.names import ROTARY_TABLE
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.errors import InputError
from hallo3_core.model.layout import NETWORKS, published_layout
from hallo3_core.model.loading import load_transformers, load_vae
from hallo3_core.network.config import Hallo3Config
from hallo3_core.speech.wav2vec2 import load_speech_encoder
from parity import FIXTURES
from small_model import published

WEIGHTS = FIXTURES / "transformer_weights.safetensors"
UNNEEDED = ("mixins.pos_embed.freqs_", "transformer.position_embeddings.")
"""Parts of published names that we do not read: computed tables, and a tensor of the library."""


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
    assert all(any(part in name for part in UNNEEDED) for name in left)


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
        """The layers of torch.nn. Each layer that is made is noted."""

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


OTHER_SIZES = Hallo3Config(
    layers=3,
    heads=3,
    time_width=48,
    text_tokens=11,
    text_width=24,
    latent_height=8,
    latent_width=12,
    audio_channels=4,
    audio_hidden=20,
    audio_tokens=2,
    audio_width=12,
    face_tokens=5,
    face_width=16,
)


@pytest.mark.parametrize(
    ("config", "latent_size"),
    [(OTHER_SIZES, None), (replace(OTHER_SIZES, latent_width=14, text_tokens=226), (8, 14))],
)
def test_any_sizes_are_read_off_the_shapes(tmp_path, config, latent_size):
    weights = published(config)
    if config.text_tokens == 226:  # then the shapes say all that the table says
        del weights[ROTARY_TABLE]
    torch.save(weights, file := tmp_path / "weights.pt")
    denoiser, reference_network, audio_projector = load_transformers(file, latent_size=latent_size)
    assert denoiser.config == config
    features, _ = reference_network(
        torch.zeros(1, 16, 1, config.latent_height, config.latent_width)
    )
    assert len(features) == 3
    assert features[0].shape == (1, config.frame_tokens, 192)
    assert audio_projector(torch.zeros(1, 49, 5, 12, 4)).shape == (1, 13, 2, 12)


def test_any_autoencoder_is_read_off_the_shapes(tmp_path):
    config = {
        "block_out_channels": (32, 32, 64),
        "down_block_types": ("CogVideoXDownBlock3D",) * 3,
        "up_block_types": ("CogVideoXUpBlock3D",) * 3,
        "layers_per_block": 2,
        "latent_channels": 8,
    }
    vae = AutoencoderKLCogVideoX(**config)
    save_file(vae.state_dict(), file := tmp_path / "vae.safetensors")
    loaded = load_vae(file)
    assert {name: loaded.config[name] for name in config} == config


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"", "is empty: download it again"),
        (b"\x00" * 100, "damaged or cut short"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_that_are_no_weights(tmp_path, content, says, suffix):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_weights(file)


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


def test_a_pickle_that_would_run_a_program(tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"module": Malicious()}, file := tmp_path / "weights.pt")
    with pytest.raises(InputError, match="contains more than weights"):
        read_weights(file)
    assert not (tmp_path / "executed").exists()


def test_old_pytorch_files(tmp_path):
    weights = load_file(WEIGHTS)
    torch.save(weights, file := tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    loaded = read_weights(file)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_shapes_that_cannot_be(tmp_path):
    weights = load_file(WEIGHTS)
    weights["model.diffusion_model.mixins.patch_embed.proj.weight"] = torch.zeros(5)
    save_file(weights, file := tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="shapes that are not Hallo3's"):
        load_transformers(file)


@pytest.mark.parametrize(
    "left", ["decoder.conv_in.conv.weight", "encoder.conv_in.conv.weight", "encoder.down.0"]
)
def test_an_autoencoder_that_is_not_whole(tmp_path, left):
    weights = load_file(FIXTURES / "vae_weights.safetensors")
    weights = {name: value for name, value in weights.items() if not name.startswith(left)}
    save_file(weights, file := tmp_path / "vae.safetensors")
    with pytest.raises(InputError, match=r"not a whole CogVideoX VAE|lacks"):
        load_vae(file)


def test_a_speech_encoder_that_is_not_whole(tmp_path):
    encoder = Wav2Vec2Model(
        Wav2Vec2Config(
            hidden_size=12,
            conv_dim=(8,) * 7,
            num_attention_heads=2,
            intermediate_size=8,
            num_conv_pos_embedding_groups=2,
        )
    )
    encoder.save_pretrained(tmp_path)
    assert isinstance(load_speech_encoder(tmp_path), Wav2Vec2Model)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["feature_projection.projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of 210 tensors \(feature_projection.projection"):
        load_speech_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.safetensors is empty: download it again"):
        load_speech_encoder(tmp_path)


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


def test_the_transformers_are_not_taken_for_a_vae():
    with pytest.raises(InputError, match="is not the CogVideoX VAE but the Hallo3 transformers"):
        load_vae(WEIGHTS)
