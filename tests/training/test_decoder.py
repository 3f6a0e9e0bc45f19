"""The training of the decoder on what the denoiser makes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from hallo3_core import builtin
from training import decoder
from training.builtin_model import trained_vae
from training.decoder import Material, Pair, prepare
from training.drawn import DrawnShots
from training.examples import prepare as encode_shots
from training.loop import Settings
from training.networks import Networks

SHORT = Settings(steps=3, rate=1e-3, warmup=1)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLCogVideoX:
    return trained_vae(builtin.WEIGHTS)


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    """Of one drawn shot."""
    folder, model = tmp_path_factory.mktemp("run"), builtin.load()
    shots = DrawnShots("validation", 1, builtin.CONFIG)
    examples = encode_shots(folder / "examples", shots, model.vae, model.speech_encoder)
    networks = Networks(model.denoiser, model.reference_network, model.audio_projector)
    return prepare(folder, shots, examples, networks, builtin.STEPS)


def psnr(found: Tensor, pixels: Tensor) -> float:
    return -10 * ((found - pixels) / 2).square().mean().log10().item()


@torch.no_grad()
@pytest.mark.parametrize("first", range(0, 12, 2))
def test_latents_and_frames_belong_together(vae, material, first, monkeypatch):
    """Of every chunk. Frames of the latent frame before are further off."""
    monkeypatch.setattr(decoder, "NOISE", 0)
    generator, pair = np.random.default_rng(first), Pair(vae)
    rows = material.crop(first, made=False, whole=True, generator=generator)
    latents, pixels, _ = (row[None] for row in rows)
    found = pair.decode(latents)
    assert found.shape == pixels.shape == (1, 3, 9 if first == 0 else 8, 128, 192)
    assert psnr(found, pixels) > 29
    late = pixels[:, :, 4:]
    assert psnr(found[:, :, 4:], late) > psnr(found[:, :, :-4], late)


@torch.no_grad()
def test_the_denoisers_latents_show_the_same_person(vae, material):
    rows = material.crop(4, made=True, whole=True, generator=np.random.default_rng(0))
    latents, pixels, _ = (row[None] for row in rows)
    assert psnr(Pair(vae).decode(latents), pixels) > 15


def test_crops_are_where_the_latents_are(material):
    """Half of them have the mouth in them, and others may have it, too."""
    found = [material.draw(step, whole=False) for step in range(8)]
    assert all(pixels.shape[-2:] == (48, 64) for _, pixels, _ in found)
    assert all(latents.shape[-2:] == (6, 8) for latents, _, _ in found)
    assert sum(bool(mouth[i].any()) for _, _, mouth in found for i in range(2)) >= 6


def test_decoder_and_critic_learn_from_their_own_losses(vae, material):
    pair = Pair(vae)
    losses = pair.losses(*material.draw(0, whole=False))
    for name, trained, other in (
        ("fooling", pair.decoder, pair.critic),
        ("matching", pair.decoder, pair.critic),
        ("judging", pair.critic, pair.decoder),
    ):
        pair.zero_grad()
        losses[name].backward(retain_graph=True)
        assert any(weight.grad is not None for weight in trained.parameters()), name
        assert all(weight.grad is None for weight in other.parameters()), name


def test_only_the_decoder_changes_and_a_stopped_run_continues(material, tmp_path):
    def trained(folder: Path, *steps: int) -> dict[str, Tensor]:
        for count in steps:
            settings = Settings(count, SHORT.rate, warmup=SHORT.warmup)
            found = decoder.train(folder, trained_vae(builtin.WEIGHTS), material, settings)
        return found.state_dict()

    before, once = trained_vae(builtin.WEIGHTS).state_dict(), trained(tmp_path / "once", 3)
    for name, value in before.items():
        assert torch.equal(once[name], value) == name.startswith("encoder."), name
    again = trained(tmp_path / "once", 3)
    assert all(torch.equal(again[name], value) for name, value in once.items())
