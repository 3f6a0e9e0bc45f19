"""Faster modes, and their error against the full result: `python -m benchmarks.modes`.

Compares each mode with all guided steps of the deterministic solver: the share of the denoiser's
calls, which is the share of the time, and the error of a segment's latents relative to their norm.
The weights are random. So the errors show which modes change more, but not how a face looks.
"""

import argparse
from copy import deepcopy
from dataclasses import replace

import torch

from hallo3_core import builtin
from hallo3_core.animate import animate
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.network.weight_formats import FORMATS, WeightFormat, quantize_layers
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.speech.encode import Speech, encode_speech

SIZES = {
    "tiny": builtin.CONFIG,
    "mid": replace(builtin.CONFIG, layers=8, heads=8, time_width=128),
}
MODES = {
    "all steps, guided": (1, {}),
    "guidance in the first 70 %": (1, {"interval": (0, 0.7)}),
    "guidance from 10 to 60 %": (1, {"interval": (0.1, 0.6)}),
    "half of the steps": (0.5, {}),
    "30 % of the steps": (0.3, {}),
    "20 % of the steps": (0.2, {}),
    "30 % of the steps, guidance in the first 70 %": (0.3, {"interval": (0, 0.7)}),
    "no guidance": (1, {"guidance": 1.0}),
}
"""For each mode the share of the steps, and options of `animate`."""
WEIGHTS = {f"{kind.name} weights": kind for kind in FORMATS.values() if kind.layout}
"""The modes with all steps whose weights are quantised."""


def random_model(config: Hallo3Config) -> Hallo3:
    """The built-in model with transformers of another size."""
    torch.manual_seed(0)
    networks = [network(config).eval() for network in (Denoiser, ReferenceNetwork, AudioProjector)]
    small = builtin.load()
    return Hallo3(*networks, small.vae, small.speech_encoder, small.text_encoder)


def quantized(model: Hallo3, kind: WeightFormat) -> Hallo3:
    """A copy of a model with a quantised denoiser."""
    denoiser = deepcopy(model.denoiser)
    quantize_layers(denoiser, kind)
    return replace(model, denoiser=denoiser)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, nargs="+", default=list(SIZES))
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    for name in arguments.size:
        model = random_model(SIZES[name])
        portrait = builtin.portrait()
        parts = (model.vae, model.reference_network, portrait, None, SeededNoise(0))
        identity = encode_portrait(*parts)
        waveform = torch.randn(16_000 * 2, generator=torch.Generator().manual_seed(1))
        features = encode_speech(model.speech_encoder, waveform).features
        speech = Speech(features, frames=1)
        config = SIZES[name]
        print(f"{name}: {config.layers} layers of {config.width}, {arguments.steps} steps\n")
        print("| mode | calls | off by |\n|---|---|---|")
        full, calls = None, []
        model.denoiser.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        for label, (share, options) in (MODES | dict.fromkeys(WEIGHTS, (1, {}))).items():
            used = quantized(model, WEIGHTS[label]) if label in WEIGHTS else model
            options = options | {"steps": round(share * arguments.steps), "sampler": "dpm++2m"}
            calls.clear()
            (segment,) = animate(used, identity, speech, SeededNoise(0), **options)
            full = segment.latents if full is None else full
            error = (segment.latents - full).norm() / full.norm()
            share = len(calls) / (2 * arguments.steps)
            print(f"| {label} | {share:.0%} | {error:.2%} |", flush=True)
        print()


if __name__ == "__main__":
    main()
