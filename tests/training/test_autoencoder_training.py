"""Training of the autoencoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from hallo3_core import builtin
from training import autoencoder
from training_data import SETTINGS, autoencoder_stage, clips_of_noise


def test_normalised_latents_decode_to_the_same():
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(**builtin.VAE).eval()
    frames, _ = clips_of_noise()
    pixels = autoencoder.to_pixels(frames)
    with torch.no_grad():
        before = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        autoencoder.normalise(vae, frames)
        latents = vae.encode(pixels).latent_dist.mean
        after = vae.decode(latents).sample
    assert (0.7 * latents).pow(2).mean(dim=(0, 2, 3, 4)) == pytest.approx(np.ones(16), rel=1e-3)
    assert (before - after).abs().max() < 1e-4


@pytest.mark.parametrize("trained", [True, False])
def test_an_encoder_that_is_not_trained_stays_as_it_is(tmp_path, monkeypatch, trained):
    monkeypatch.setattr(autoencoder, "pictures", lambda *_: clips_of_noise())
    stage = autoencoder_stage(replace(SETTINGS, steps=2), encoder=trained)
    untrained = replace(stage, name="none", settings=replace(SETTINGS, steps=0))
    before, after = (autoencoder.train(tmp_path, (s,)).state_dict() for s in (untrained, stage))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == ({"encoder", "decoder"} if trained else {"decoder"})
