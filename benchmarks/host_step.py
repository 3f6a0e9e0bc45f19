"""Compares a guided step in ComfyUI with one of the core: `python -m benchmarks.host_step`.

ComfyUI samples the MODEL with a guider and the Hallo3 Sampler, as SamplerCustomAdvanced does. File,
latents and conditions are those of the core. Steps of ComfyUI and of the core take turns, so that
other work on the machine slows both.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from hallo3_core.model.loading import load_transformers
from hallo3_core.network.transformer import Denoiser
from hallo3_core.sampling.guidance import guided_at_once
from hallo3_core.sampling.samplers import ddim, sample
from hallo3_core.sampling.schedule import Schedule
from hallo3_core.settings import Settings

from .host import ComfyUI, Inputs
from .sizes import SIZES, make_checkpoint


def core_steps(denoiser: Denoiser, inputs: Inputs, steps: int):
    """The core's denoised estimates, step by step."""
    identity = inputs.identity
    reference = denoiser.reference_keys_values(identity.features)
    face = denoiser.face_keys_values(identity.face)
    text, tokens = torch.cat([inputs.text, inputs.text]), inputs.tokens.flatten(0, 1)
    both = denoiser.conditions(text, identity.motion, reference, face, tokens)

    def predict(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return denoiser(x, timestep.expand(len(x)), both)

    schedule = Schedule.published(steps)
    return sample(guided_at_once(predict, Settings.guidance), inputs.latents, schedule, ddim, None)


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    config = SIZES[options.size]
    torch.manual_seed(0)
    inputs = Inputs(config)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        make_checkpoint(file, config, torch.float32)
        denoiser, *_ = load_transformers(file, torch.float32)
        comfyui = ComfyUI(Path(folder) / "comfyui")
        patcher = comfyui.load(file)
        ours, times = core_steps(denoiser, inputs, options.steps), {"core": [], "ComfyUI": []}
        last, error = time.perf_counter(), torch.nan

        def callback(step: int, denoised: torch.Tensor, *_) -> None:
            nonlocal last, error
            done = time.perf_counter()
            times["ComfyUI"].append(done - last)
            expected = next(ours)
            last = time.perf_counter()
            times["core"].append(last - done)
            error = (denoised - expected).abs().max() / expected.std()

        comfyui.sample(patcher, inputs, "ddim", options.steps, callback)
    for name, seconds in times.items():
        print(f"{name}: a guided step takes {spread(seconds[1:])} s")
    ratios = [theirs / ours for ours, theirs in zip(*times.values(), strict=True)][1:]
    print(f"ComfyUI takes {statistics.median(ratios):.3f} of the core's time; off by {error:.0e}.")


if __name__ == "__main__":
    main()
