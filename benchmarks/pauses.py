"""How far the mouth opens where nobody speaks: python -m benchmarks.pauses

Unseen people of the drawn world say unseen sentences and then pause for three seconds. A hum, a
hiss or music is added to the sound. The table gives the mean opening of the mouth in the pause, in
percent of that in the speech, as it is and with `only_speech`. Medians over the clips.
"""

import argparse
import math
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from hallo3_core import builtin
from hallo3_core.animate import animate
from hallo3_core.evaluation.reader import drawn_reader
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.config import FPS, SAMPLE_RATE
from hallo3_core.noise import SeededNoise
from hallo3_core.settings import distilled
from hallo3_core.speech.activity import method, only_speech, speech_spans
from hallo3_core.speech.encode import encode_speech
from training.measure import FRAMES, identity_of, portrait, talks

PAUSE = 3 * SAMPLE_RATE
CLOSING = 8
"""Frames at the start of the pause in which the mouth may close."""
NOTES = 220.0, 277.2, 329.6


def decibels(number: float) -> float:
    return 10 ** (number / 20)


def background(kind: str, speech: Tensor) -> Tensor:
    """The sound (samples,) that is added: none, hum, hiss, or music 25 dB below the speech."""
    times = torch.arange(len(speech)) / SAMPLE_RATE
    if kind == "hum":
        return decibels(-40) * torch.sin(2 * math.pi * 50 * times)
    if kind == "hiss":
        return decibels(-45) * torch.randn(len(speech), generator=torch.Generator().manual_seed(5))
    if kind == "music":
        chord = sum(torch.sin(2 * math.pi * note * times) for note in NOTES)
        spoken = speech[:-PAUSE].square().mean().sqrt()
        return decibels(-25) * spoken / chord.square().mean().sqrt() * chord
    return torch.zeros(len(speech))


def openings(model: Hallo3, index: int, waveform: Tensor) -> np.ndarray:
    """The opening of the mouth in each frame."""
    noise = SeededNoise(index)
    identity = identity_of(model, portrait(index, model.config.canvas[0]), noise)
    speech = encode_speech(model.speech_encoder, waveform)
    segments = animate(model, identity, speech, noise, **distilled(builtin.STEPS))
    frames = torch.cat([segment.frames for segment in segments])
    return drawn_reader()(frames).opening.numpy()


def in_pause(model: Hallo3, index: int, waveform: Tensor) -> float:
    """The opening in the pause, in percent of that in the speech."""
    found = openings(model, index, waveform)
    return 100 * found[FRAMES + CLOSING :].mean() / found[:FRAMES].mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=3, help="(%(default)s)")
    clips = parser.parse_args().clips
    model = builtin.load()
    print(f"| sound | as it is | {method()} |\n|---|---|---|")
    for kind in ("clean", "hum", "hiss", "music"):
        rows = []
        for index, utterance in islice(talks(), clips):
            spoken = torch.from_numpy(utterance.waveform)[: FRAMES * SAMPLE_RATE // FPS]
            speech = torch.cat([spoken, torch.zeros(PAUSE)])
            heard = speech + background(kind, speech)
            gated = only_speech(heard, speech_spans(heard))
            rows.append([in_pause(model, index, sound) for sound in (heard, gated)])
        middle = np.median(np.array(rows), axis=0)
        print(f"| {kind} | {middle[0]:.1f} % | {middle[1]:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
