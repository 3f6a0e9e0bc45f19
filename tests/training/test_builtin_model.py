"""The built-in model's trained parts, on people that it has never seen."""

from itertools import islice

import numpy as np
import torch

from hallo3_core import builtin
from hallo3_core.evaluation.reader import drawn_reader
from hallo3_core.evaluation.tracks import track
from hallo3_core.vae import LATENT_SCALE, decode
from training import autoencoder
from training.measure import CASES, Clip, animated, portrait, talks
from training.measure import FRAMES as MEASURED
from training.pool import to_pixels
from training.world.clips import clip
from training.world.visemes import mouth_of

FRAMES = 17
CLIPS = 5


def test_pictures_come_back_from_the_autoencoder():
    frames = np.stack([clip("test", i, (128, 192), FRAMES).frames for i in range(CLIPS)])
    found = autoencoder.psnr(builtin.load().vae, frames)
    assert found.median() > 30
    assert found.min() > 28


@torch.no_grad()
def test_decoding_in_chunks_is_decoding():
    """Of 5 latent frames: 3, then 2, with what the convolutions remember in between."""
    vae = builtin.load().vae
    pixels = to_pixels(clip("test", 0, (64, 96), FRAMES).frames[None])
    latents = vae.encode(pixels).latent_dist.mean
    chunks = list(decode(vae, LATENT_SCALE * latents))
    assert [chunk.shape[2] for chunk in chunks] == [9, 8]
    assert (torch.cat(chunks, dim=2) - vae.decode(latents).sample).abs().max() < 1e-4


def test_drawings_talk():
    """In 10 steps; who they are and what they say is unseen and unheard."""
    model, reader = builtin.load(), drawn_reader()
    made = []
    for index, speech in islice(talks(), 1, 4):
        frames = np.stack(list(animated(model, CASES["10 steps"], index, speech)))
        likeness = portrait(index, model.config.canvas[0]).picture
        tracks = track(reader, frames, likeness)
        made.append(Clip(tracks, mouth_of(speech, MEASURED).opening))
    assert np.median([clip.sync for clip in made]) > 0.7
    assert all(abs(clip.lag) <= 1 for clip in made)
    assert all(clip.tracks.distance.mean() < 0.1 for clip in made)
