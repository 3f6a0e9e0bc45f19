"""Training that makes mouths open further.

A student that is trained on clips predicts the mean of what a mouth may do, so it opens mouths too
little. With a larger `speech_strength` it opens them further. Here it learns to do at strength 1
what it did at a larger one.
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hallo3_core import builtin
from hallo3_core.network.config import AUDIO_WINDOW, LATENT_FRAMES, SEGMENT_FRAMES

from .denoiser import freeze, losses
from .distill import roll_out
from .examples import Examples
from .loop import DEVICE, Loop, Settings, mixed_precision
from .networks import Batch, Networks, columns
from .pairs import PAIRS, Joined

STRENGTH = 1.5
STRONGER = replace(
    PAIRS,
    name="stronger",
    settings=Settings(130, 4e-4, warmup=20, average=0.98),
    batch=3,
    strangers=0.5,
)
SINGLE_EVERY = 4
"""One step in so many sees single people, the others pairs."""
LISTENERS = 0.33
"""Share of the pairs in which one of the two hears silence."""


def train(networks: Networks, singles: Examples, silence: Tensor, folder: Path) -> Networks:
    """Continue the training on pairs. Returns the averaged networks.

    `silence` (12, channels) is what the speech encoder hears in silence.
    """
    teacher = deepcopy(networks).to(DEVICE)
    freeze(networks, STRONGER)
    loop = Loop(folder / STRONGER.name, networks, STRONGER.settings)
    pairs = Joined(singles, STRONGER.strangers)

    def losses_at(step: int) -> dict[str, Tensor]:
        single = step % SINGLE_EVERY == SINGLE_EVERY - 1
        batch = roll_out(networks, singles if single else pairs, STRONGER, builtin.STEPS, step)
        if not single:
            batch = with_listeners(batch, silence, np.random.default_rng([53, step]))
        target = predict(teacher, batch, silence, STRENGTH)
        return losses(networks, replace(batch, target=target))

    loop.run(losses_at)
    return loop.finish()


def with_listeners(batch: Batch, silence: Tensor, generator: np.random.Generator) -> Batch:
    """The pairs, in some of which one of the two hears silence."""
    speech = batch.speech.clone()
    for voices in speech:
        if generator.random() < LISTENERS:
            voices[generator.integers(len(voices))] = silence
    return replace(batch, speech=speech)


@torch.no_grad()
def predict(networks: Networks, batch: Batch, silence: Tensor, strength: float) -> Tensor:
    """v of a batch, with the difference between speech and silence times `strength`.

    This is what `speech_strength` does while sampling (`hallo3_core.speech.dialogue.voices`).
    """
    speech = batch.speech if batch.speech.ndim == 6 else batch.speech[:, None]
    count, frames = speech.shape[1], len(batch) * LATENT_FRAMES
    silent = silence.to(speech).expand(len(batch), 1, SEGMENT_FRAMES, AUDIO_WINDOW, -1, -1)
    heard = torch.cat([speech, silent], dim=1)
    shares = strength * columns(count, networks.config)[:, None].expand(-1, frames, -1)
    weights = torch.cat([shares, 1 - shares.sum(dim=0, keepdim=True)]).to(speech)
    with mixed_precision():
        tokens = networks.audio_projector(heard.transpose(0, 1).flatten(0, 1))
        features, _ = networks.reference_network(batch.reference, text=networks.text_of(batch))
        conditions = networks.conditions(batch, features, (tokens, weights))
        return networks.denoiser(batch.latents, batch.timesteps, conditions).float()
