"""Colours of the live preview."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comfyui import switch_previews_on
from safetensors.torch import save
from test_segments import sample

ALL = (slice(0, 128), slice(0, 192))


@pytest.fixture
def previews(host, monkeypatch):
    """ComfyUI's own previewer of a latent format, with previews switched on."""
    latent_preview = switch_previews_on(monkeypatch)

    def show(latent_format, latents: torch.Tensor) -> np.ndarray:
        previewer = latent_preview.get_previewer("cpu", latent_format)
        _, picture, _ = previewer.decode_latent_to_preview_image("JPEG", latents)
        return np.asarray(picture) / 255

    return show


def test_colours_are_those_of_the_portrait(host, parts, previews):
    """If latents are a linear map of the colours, the preview is the small picture."""
    parts.graph.keep(parts.model)
    (patcher,) = host.run(parts.graph)
    latent_format = type(patcher.model.latent_format)()
    torch.manual_seed(0)
    portrait = F.interpolate(torch.rand(1, 3, 8, 12) * 1.8 - 0.9, scale_factor=16)
    small = F.avg_pool2d(portrait, 8)
    latents = torch.einsum("lc,bchw->blhw", torch.randn(16, 3), small) + torch.randn(16, 1, 1)
    motion = F.pad(latents[:, :, None], (0, 0, 0, 0, 0, 12))
    latent_format.learn_colours(SimpleNamespace(portrait=portrait, motion=motion, place=ALL))
    shown = previews(latent_format, motion)
    assert np.abs(shown - (small[0].permute(1, 2, 0).numpy() / 2 + 0.5)).max() < 0.05


def test_a_picture_of_one_colour(host, parts, previews):
    """Latents without any information still give that colour."""
    parts.graph.keep(parts.model)
    (patcher,) = host.run(parts.graph)
    latent_format = type(patcher.model.latent_format)()
    portrait = torch.full((1, 3, 128, 192), -1.0)
    motion = torch.zeros(1, 16, 13, 16, 24)
    latent_format.learn_colours(SimpleNamespace(portrait=portrait, motion=motion, place=ALL))
    assert previews(latent_format, motion).max() == 0


@pytest.mark.parametrize(
    ("place", "size"),
    [
        (ALL, (16, 24)),
        ((slice(0, 128), slice(32, 160)), (16, 16)),  # a square
        ((slice(0, 128), slice(53, 139)), (16, 10)),  # only what lies wholly inside
        ((slice(0, 128), slice(95, 97)), (16, 1)),
    ],
)
def test_the_black_bars_are_left_out(host, parts, previews, place, size):
    """The preview of a white picture on a black canvas is white."""
    parts.graph.keep(parts.model)
    (patcher,) = host.run(parts.graph)
    latent_format = type(patcher.model.latent_format)()
    portrait = torch.full((1, 3, 128, 192), -1.0)
    portrait[..., *place] = 1
    small = F.avg_pool2d(portrait, 8)
    motion = F.pad(small.mean(1, keepdim=True).expand(-1, 16, -1, -1)[:, :, None], (0,) * 5 + (12,))
    identity = SimpleNamespace(portrait=portrait, motion=motion, place=place)
    latent_format.learn_colours(identity)
    shown = previews(latent_format, motion)
    assert shown.shape[:2] == size
    if size[1] > 1:
        assert shown.min() > 0.9


def test_the_tiny_decoder_shows_the_middle_of_the_segment(host, parts, previews):
    """Random weights with the names and shapes of taecvx. The bars are left out."""
    parts.graph.keep(parts.model)
    (patcher,) = host.run(parts.graph)
    pack = type(patcher.model).__module__.rpartition(".")[0]
    tiny = importlib.import_module(f"{pack}.tiny_decoder")
    folder = Path(sys.modules["folder_paths"].get_folder_paths("vae_approx")[0])
    folder.mkdir(parents=True, exist_ok=True)
    assert tiny.find_tiny_decoder() is None
    torch.manual_seed(0)
    shapes = tiny.TAEHV(latent_channels=16).state_dict()
    weights = {name: (torch.randn(old.shape) / 20).half() for name, old in shapes.items()}
    (folder / "taecvx.safetensors").write_bytes(save(weights))
    try:
        decoder = tiny.find_tiny_decoder()
        latent_format = type(patcher.model.latent_format)()
        place = slice(0, 32), slice(8, 40)
        latent_format.preview_with(decoder, SimpleNamespace(place=place))
        latents = torch.randn(1, 16, 13, 4, 6)
        shown = previews(latent_format, latents)
    finally:
        (folder / "taecvx.safetensors").unlink()
    wanted = decoder.decode(latents[:, :, 6:7] / 0.7)[0, :, 0, *place].movedim(0, -1).clamp(0, 1)
    assert shown.shape == (32, 32, 3)
    assert np.abs(shown - wanted.numpy()).max() < 1.5 / 255


def test_a_damaged_tiny_decoder_is_told(host, parts, tmp_path, caplog):
    parts.graph.keep(parts.model)
    (patcher,) = host.run(parts.graph)
    pack = type(patcher.model).__module__.rpartition(".")[0]
    tiny = importlib.import_module(f"{pack}.tiny_decoder")
    file = tmp_path / "taecvx.safetensors"
    file.write_bytes(b"nothing")
    assert tiny._load(str(file)) is None
    assert "taecvx.safetensors cannot be loaded" in caplog.text


def test_sampling_shows_pictures(host, parts, previews, monkeypatch):
    """One for each step, with the size of the latents."""
    pictures = []
    hook = importlib.import_module("comfy.utils").set_progress_bar_global_hook
    hook(lambda done, total, preview, **others: pictures.append(preview))
    parts.graph.keep(sample(parts, 0, steps=2))
    host.run(parts.graph, fresh=True)
    hook(None)
    shown = [preview[1].size for preview in pictures if preview]
    assert shown == [(24, 16)] * 2
