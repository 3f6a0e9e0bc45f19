"""What direction costs: python -m benchmarks.directing

Samples one segment of the built-in model in four steps, in several ways, one after the other in
each round. The table gives the time of each as a ratio to one speaker with two calls a step: the
median of the rounds.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from hallo3_core import builtin, examples
from hallo3_core.animate import ModelAnimator
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.sound.sound_file import read_sound
from hallo3_core.speech.dialogue import Dialogue, Speaker
from hallo3_core.speech.encode import encode_speech

ROUNDS = 5


def ways() -> dict[str, Callable[[], object]]:
    """Each samples the first segment."""
    model, noise = builtin.load(), SeededNoise(0)
    networks = model.vae, model.reference_network
    identity = encode_portrait(*networks, examples.pair(), None, noise)
    speech = encode_speech(model.speech_encoder, read_sound(examples.SPEECH).mono(16_000))
    left = torch.zeros(512, 768)
    left[:, :384] = 1
    two = Dialogue((Speaker(speech, left), Speaker(speech, 1 - left)))
    alone = Dialogue((Speaker(speech, left),))
    prompt = model.text_encoder()("two people talk")

    def sampled(speech, **options) -> Callable[[], object]:
        settings = {"steps": 4, "guidance": 3.5} | options
        animator = ModelAnimator(model, identity, speech, noise, text=prompt, **settings)
        return partial(animator.sample, 0, identity.motion)

    return {
        "one speaker, two calls": sampled(speech),
        "guidance of its own for the prompt, three calls": sampled(speech, text_guidance=5.0),
        "one speaker in a half, silence in the other": sampled(alone),
        "two speakers, a half each": sampled(two),
        "speech strength 0.5": sampled(speech, speech_strength=0.5),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    times: dict[str, list[float]] = {}
    samplers = ways()
    for round_ in range(ROUNDS + 1):
        for name, sample in samplers.items():
            start = time.perf_counter()
            sample()
            if round_:  # the first warms up
                times.setdefault(name, []).append(time.perf_counter() - start)
    first = next(iter(times.values()))
    print("| way | time |\n|---|---|")
    for name, found in times.items():
        ratios = [mine / one for mine, one in zip(found, first, strict=True)]
        print(f"| {name} | {median(ratios):.2f} |")


if __name__ == "__main__":
    main()
