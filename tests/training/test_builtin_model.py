"""The built-in model's trained parts, on people that it has never seen."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from hallo3_core import builtin
from hallo3_core.autoencoder.vae import LATENT_SCALE, decode
from training.measure import FEW, Case, Clip, animated, measure
from training.pool import to_pixels
from training.world.clips import clip

FRAMES = 17
CLIPS = 5


@torch.no_grad()
def test_pictures_come_back_from_the_autoencoder():
    vae, found = builtin.load().vae, []
    for index in range(CLIPS):
        pixels = to_pixels(clip("test", index, (128, 192), FRAMES).frames[None])
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        found.append(peak_signal_noise_ratio(pixels.numpy(), decoded.numpy(), data_range=2))
    assert np.median(found) > 30
    assert min(found) > 28


@torch.no_grad()
def test_decoding_in_chunks_is_decoding():
    """Of 5 latent frames: 3, then 2, with what the convolutions remember in between."""
    vae = builtin.load().vae
    pixels = to_pixels(clip("test", 0, (64, 96), FRAMES).frames[None])
    latents = vae.encode(pixels).latent_dist.mean
    chunks = list(decode(vae, LATENT_SCALE * latents))
    assert [chunk.shape[2] for chunk in chunks] == [9, 8]
    assert (torch.cat(chunks, dim=2) - vae.decode(latents).sample).abs().max() < 1e-4


def made(case: Case, folder: Path, clips: int) -> list[Clip]:
    """Who these people are and what they say is unseen and unheard."""
    model = builtin.load()
    video, side = partial(animated, model, case), model.config.canvas[0]
    return measure("unseen", video, side, folder, clips, model.device)


@pytest.fixture(scope="module")
def talking(tmp_path_factory) -> list[Clip]:
    return made(FEW, tmp_path_factory.mktemp("talking"), 3)


def test_drawings_talk(talking):
    """In four steps without guidance."""
    assert np.median([clip.sync for clip in talking]) > 0.7
    assert all(abs(clip.lag) <= 1 for clip in talking)
    assert all(clip.tracks.distance.mean() < 0.06 for clip in talking)


def test_the_face_comes_from_the_reference_network(talking, tmp_path):
    [stranger] = made(replace(FEW, referenced=False), tmp_path, 1)
    assert stranger.tracks.distance.mean() > 1.5 * talking[0].tracks.distance.mean()
