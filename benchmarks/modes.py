"""Faster modes, and how far they are from the full result: `python -m benchmarks.modes`.

Against 50 guided steps of the deterministic solver: the time of one segment's sampling, and how far
its latents are off, relative to theirs. With random weights the second number says which modes
change much and which little, not how a face looks.
"""

import argparse
import time
from dataclasses import replace

import torch

from hallo3_core import builtin
from hallo3_core.animate import animate
from hallo3_core.conditioning import AudioProjector
from hallo3_core.config import Hallo3Config
from hallo3_core.convert import LARGEST_FP8
from hallo3_core.layers import ScaledLinear
from hallo3_core.model import Hallo3
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait import encode_portrait
from hallo3_core.speech import Speech, encode_speech
from hallo3_core.transformer import Denoiser, ReferenceNetwork

SIZES = {
    "tiny": builtin.CONFIG,
    "mid": replace(builtin.CONFIG, layers=8, heads=8, time_width=128),
}
MODES = {
    "50 steps, guided": {"steps": 50},
    "guidance in the first 70 %": {"steps": 50, "interval": (0, 0.7)},
    "guidance from 10 to 60 %": {"steps": 50, "interval": (0.1, 0.6)},
    "25 steps": {"steps": 25},
    "15 steps": {"steps": 15},
    "10 steps": {"steps": 10},
    "15 steps, guidance in the first 70 %": {"steps": 15, "interval": (0, 0.7)},
    "no guidance": {"steps": 50, "guidance": 1.0},
}


def random_model(config: Hallo3Config) -> Hallo3:
    """The built-in model with transformers of another size."""
    torch.manual_seed(0)
    networks = [network(config).eval() for network in (Denoiser, ReferenceNetwork, AudioProjector)]
    small = builtin.load()
    return Hallo3(*networks, small.vae, small.speech_encoder, small.text_encoder)


def quantise(denoiser: Denoiser) -> None:
    """Keep the matrices of the layers in scaled fp8, as `convert` does."""
    for name, module in list(denoiser.layers.named_modules()):
        if isinstance(module, torch.nn.Linear):
            inputs, outputs = module.in_features, module.out_features
            scaled = ScaledLinear(inputs, outputs, bias=module.bias is not None)
            scale = module.weight.abs().max() / LARGEST_FP8
            scaled.requires_grad_(False)
            scaled.weight.data = (module.weight / scale).to(torch.float8_e4m3fn)
            scaled.weight_scale, scaled.bias = scale, module.bias
            denoiser.layers.set_submodule(name, scaled)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, nargs="+", default=list(SIZES))
    for name in parser.parse_args().size:
        model = random_model(SIZES[name])
        portrait = builtin.portrait()
        parts = (model.vae, model.reference_network, portrait, None, SeededNoise(0))
        identity = encode_portrait(*parts)
        waveform = torch.randn(16_000 * 2, generator=torch.Generator().manual_seed(1))
        features = encode_speech(model.speech_encoder, waveform).features
        speech = Speech(features, frames=1)
        print(f"{name}: {SIZES[name].layers} layers of {SIZES[name].width}\n")
        print("| mode | times as fast | off by |\n|---|---|---|")
        full = seconds = None
        for label, options in {**MODES, "fp8 weights": {"steps": 50}}.items():
            if label == "fp8 weights":
                quantise(model.denoiser)
            start = time.perf_counter()
            noise = SeededNoise(0)
            (segment,) = animate(model, identity, speech, noise, sampler="dpm++2m", **options)
            took = time.perf_counter() - start
            full, seconds = (segment.latents, took) if full is None else (full, seconds)
            error = (segment.latents - full).norm() / full.norm()
            print(f"| {label} | {seconds / took:.2f} | {error:.2%} |", flush=True)
        print()


if __name__ == "__main__":
    main()
