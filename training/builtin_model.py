"""The recipe of the built-in model, from random weights to the files in the pack."""

import logging
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file

from hallo3_core import builtin
from hallo3_core.autoencoder.lean import make_lean
from hallo3_core.evaluation import reader
from hallo3_core.speech.encode import silent_frame

from . import (
    autoencoder,
    combined,
    decoder,
    denoiser,
    distill,
    face_reader,
    pairs,
    speech_encoder,
    stronger,
)
from .curves import plot
from .drawn import DrawnShots
from .examples import Examples, prepare
from .export import save_half, save_networks
from .loop import COMPUTE
from .networks import Networks
from .pairs import PairShots
from .pool import pictures

SHOTS = 8000
PAIRS = 150
"""Shots of two people."""
DECODED = 360
"""Shots that the decoder is trained on at the end."""
MEASURED = 48
"""Clips from which the scale of the latents is measured."""

DISTILLED = replace(denoiser.DISTILLED, strangers=0.9)

logger = logging.getLogger(__name__)


def train_builtin(run: Path, weights: Path | None = None) -> list[Path]:
    """Train all networks one after the other. Returns the files that were written."""
    weights = weights or builtin.WEIGHTS
    logger.info("Training the autoencoder")
    vae = autoencoder.train(run)
    drawn, _ = pictures(run / "pictures", *autoencoder.POOL)
    autoencoder.normalise(vae, drawn[:MEASURED])
    save_half(vae, weights / builtin.VAE_FILE)
    logger.info("Training the speech encoder")
    encoder = speech_encoder.train(run).encoder
    save_half(encoder, weights / builtin.SPEECH_ENCODER_FILE)
    vae = make_lean(vae)
    logger.info("Training the face reader")
    save_half(face_reader.train(run, vae), reader.FILE)
    logger.info("Encoding %d shots", SHOTS)
    vae = vae.to(COMPUTE)
    shots = DrawnShots("train", SHOTS, builtin.CONFIG)
    examples = prepare(run / "examples", shots, vae, encoder)
    strangers = DrawnShots("validation", denoiser.WATCHED, builtin.CONFIG)
    unseen = prepare(run / "unseen", strangers, vae, encoder)
    together = prepare(run / "pairs", PairShots("train", PAIRS, builtin.CONFIG), vae, encoder)
    torch.manual_seed(0)
    networks = Networks.from_nothing(builtin.CONFIG)
    for stage in (denoiser.IDENTITY, denoiser.SPEECH):
        logger.info("Training the transformers: the %s stage", stage.name)
        networks = denoiser.train(networks, examples, stage, run, unseen)
        files = save_networks(networks, run, weights)
    logger.info("Distilling the denoiser to %d steps", builtin.STEPS)
    of_trajectories = combined.by_trajectory(deepcopy(networks), examples, run)
    denoiser.freeze(networks, DISTILLED)
    draw = partial(distill.roll_out, networks, examples, DISTILLED, builtin.STEPS)
    of_clips = distill.train(networks, draw, DISTILLED, run)
    networks = combined.train(of_clips, of_trajectories, examples, run)
    save_half(networks.denoiser, weights / builtin.DISTILLED_FILE)
    logger.info("Training the decoder on what the denoiser makes")
    material = decoder.material_of(run, Examples(run / "examples", DECODED), networks)
    save_half(decoder.train(run, trained_vae(weights), material), weights / builtin.VAE_FILE)
    logger.info("Training the denoiser on pairs of people")
    networks = pairs.train(networks, examples, together, run)
    networks = stronger.train(networks, examples, silent_frame(encoder), run)
    save_half(networks.denoiser, weights / builtin.TWO_PEOPLE_FILE)
    for log in run.glob("*/losses.jsonl"):
        plot(log.parent)
    denoisers = builtin.DISTILLED_FILE, builtin.TWO_PEOPLE_FILE
    others = (builtin.VAE_FILE, builtin.SPEECH_ENCODER_FILE, *denoisers)
    return [*files, *(weights / name for name in others), reader.FILE]


def trained_vae(weights: Path) -> AutoencoderKLCogVideoX:
    """The autoencoder in float32, with diffusers' own layers."""
    vae = AutoencoderKLCogVideoX(**builtin.VAE)
    vae.load_state_dict(load_file(weights / builtin.VAE_FILE))
    return vae.float()
