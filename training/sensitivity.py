"""Measures what quantised weights change, one kind of matrix at a time.

The built-in model animates unseen people with unseen speech of the test split. Each row quantises
some matrices in one layout, in memory, as `convert` does in files.
"""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hallo3_core import builtin
from hallo3_core.animate import animate
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.config import NEW_FRAMES
from hallo3_core.network.weight_formats import FORMATS, MATRIX, WeightFormat, quantize_layers
from hallo3_core.noise import SeededNoise
from hallo3_core.speech.encode import Speech, encode_speech

from .measure import FEW, animated, identity_of, measure, portrait, talks
from .measured import folder_of, heading, line, middle

CLIPS = 10
STEPS = {"steps": 10, "sampler": "dpm++2m"}
"""How latents are sampled to compare them: by the model before distillation, with guidance."""
DEFAULT, REFERENCE = "as converted", "reference network"


def kinds_of(network: nn.Module) -> list[str]:
    """The kinds of matrices in the layers of a network."""
    linears = (name for name, m in network.named_modules() if isinstance(m, nn.Linear))
    found = (MATRIX.fullmatch(f"{name}.weight") for name in linears)
    return list(dict.fromkeys(match["kind"] for match in found if match))


def group_of(kind: str) -> str:
    """What a kind of matrix is measured with: those of a cross-attention are measured together."""
    block, _, _ = kind.partition(".")
    return block if block.endswith("attention") else kind


def groups_of(network: nn.Module) -> list[str]:
    return list(dict.fromkeys(map(group_of, kinds_of(network))))


def quantized(model: Hallo3, kind: WeightFormat, matrices: str) -> Hallo3:
    """A copy of a model with matrices quantised.

    `matrices` is one of `groups_of` the denoiser's, `REFERENCE` for all of the reference network,
    or `DEFAULT` for what `convert` quantises.
    """
    denoiser, reference = deepcopy(model.denoiser), deepcopy(model.reference_network)
    if matrices == DEFAULT:
        quantize_layers(denoiser, kind)
        quantize_layers(reference, kind.of_reference)
    elif matrices == REFERENCE:
        quantize_layers(reference, replace(kind, apart={}))
    else:
        others = (name for name in kinds_of(denoiser) if group_of(name) != matrices)
        quantize_layers(denoiser, replace(kind, apart=dict.fromkeys(others)))
    return replace(model, denoiser=denoiser, reference_network=reference)


@torch.no_grad()
def latents_of(model: Hallo3) -> Tensor:
    """The latents of one segment of the first clip of the test split, in 10 guided steps."""
    index, speech = next(talks())
    noise = SeededNoise(index)
    identity = identity_of(model, portrait(index, model.config.canvas[0]), noise)
    heard = encode_speech(model.speech_encoder, torch.from_numpy(speech.waveform))
    first = Speech(heard.features, frames=NEW_FRAMES)
    (segment,) = islice(animate(model, identity, first, noise, **STEPS), 1)
    return segment.latents


def row(model: Hallo3, run: Path, clips: int) -> tuple[str, ...]:
    """The median r, identity and CPBD of the clips of a model."""
    video, side = partial(animated, model, FEW), model.config.canvas[0]
    made = measure("4 steps", video, side, folder_of(model, run), clips, model.device)
    return (
        f"{middle(clip.sync for clip in made):.3f}",
        f"{middle(clip.tracks.distance.mean() for clip in made):.4f}",
        f"{middle(np.nanmean(clip.tracks.sharpness) for clip in made):.3f}",
    )


def report(run: Path, formats: Iterable[str], clips: int, apart: bool) -> Iterator[str]:
    """The lines of the table. `apart` adds rows for each kind of matrix alone."""
    distilled, teacher = (builtin.load(distilled=few) for few in (True, False))
    exact = latents_of(teacher)
    columns = "latents off by", "r of the mouth", "identity", "sharpness"
    yield from heading("weights", "quantised", *columns)
    yield line("as they are", "none", "", *row(distilled, run, clips))
    groups = groups_of(distilled.denoiser)
    for key in formats:
        kind = FORMATS[key]
        for matrices in (DEFAULT, *(groups if apart else ()), *((REFERENCE,) if apart else ())):
            found = latents_of(quantized(teacher, kind, matrices))
            error = (found - exact).norm() / exact.norm()
            numbers = row(quantized(distilled, kind, matrices), run, clips)
            yield line(kind.name, matrices, f"{error:.1%}", *numbers)
