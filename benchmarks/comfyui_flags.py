"""Tests ComfyUI's flags for memory, dtypes and attention: `python -m benchmarks.comfyui_flags`.

The flags for caches are tested, too. For each flag, a ComfyUI starts on a pretended graphics card
(tests/pretended) in its own process, and makes a clip of two segments with the built-in model. The
table says whether this works, and how far latents and frames are from those in float32.
"""

import argparse
import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from run import find_comfyui
from tests.host.comfyui import Graph, Host, build
from tests.pretended import npu

from .sizes import make_small_vae

HEAVY = ["torch.utils.cpp_extension", "diffusers", "transformers", "av"]
"""These take longest to import. One process imports them, and the others are forked from it."""
AT_ONCE = 2

EXACT = "--fp32-unet --fp32-vae"
"""With these flags, only the order of sums can change the numbers."""

SAME_NUMBERS = (
    "--gpu-only",
    "--highvram",
    "--lowvram",
    "--novram",
    "--cpu-vae",
    "--reserve-vram 6.9",
    "--vram-headroom 2",
    "--disable-smart-memory",
    "--disable-dynamic-vram",
    "--enable-dynamic-vram",
    "--disable-pinned-memory",
    "--async-offload",
    "--async-offload 4 --novram",
    "--disable-async-offload",
    "--force-non-blocking",
    "--deterministic",
    "--fast-disk",
    "--disable-mmap",
    "--mmap-torch-files",
    "--force-channels-last",
    "--cache-none",
    "--cache-lru 2",
    "--cache-classic",
    "--cache-ram 4",
    "--high-ram",
    "--use-split-cross-attention",
    "--use-quad-cross-attention",
    "--use-pytorch-cross-attention",
    "--force-upcast-attention",
    "--dont-upcast-attention",
    "--disable-xformers",
    "--fp16-text-enc",
)
"""Flags for the place of networks, the time of moves, and the order of sums. Used with `EXACT`."""

OTHER_NUMBERS = (
    "",
    "--force-fp32",
    "--force-fp16",
    "--fp64-unet",
    "--bf16-unet",
    "--fp16-unet",
    "--fp8_e4m3fn-unet",
    "--fp8_e4m3fn-unet --supports-fp8-compute --fast fp8_matrix_mult",
    "--fp8_e5m2-unet",
    "--fp16-vae",
    "--bf16-vae",
    "--fp16-intermediates",
    "--fast",
)
"""Flags for the dtype of the computation. Without a flag, ComfyUI chooses bf16 on this card."""

FLAGS = *(f"{EXACT} {flag}" for flag in SAME_NUMBERS), *OTHER_NUMBERS


@dataclass(frozen=True)
class Clip:
    """The clip of a ComfyUI with some flags: `latents` of the first segment, and all `frames`."""

    latents: np.ndarray
    frames: np.ndarray

    def change(self, plain: "Clip") -> tuple[float, float]:
        """The relative error of latents and of frames, compared with the clip `plain`."""
        pairs = (self.latents, plain.latents), (self.frames, plain.frames)
        return tuple(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs)


def clips(
    flags: Iterable[str], seconds: float, steps: int, small_vae: bool
) -> Iterator[Clip | str]:
    """The clip for each of `flags`, or the error sentence if there is no clip."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    with ProcessPoolExecutor(AT_ONCE, context, max_tasks_per_child=1) as pool:
        made = [pool.submit(make_clip, flag, seconds, steps, small_vae) for flag in flags]
        for clip in made:
            error = clip.exception()
            yield f"{type(error).__name__}: {error}" if error else clip.result()


def make_clip(flags: str, seconds: float, steps: int, small_vae: bool) -> Clip:
    """The clip of a ComfyUI with these flags. It can be made only once in a process."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HALLO3_STORE"] = f"{folder}/segments"
        host = start(flags, Path(folder) / "base")
        torch.manual_seed(0)
        names = make_small_vae(host.base / "models") if small_vae else {}
        frames, latent = host.run(graph(seconds, steps, names))
    return Clip(*(x.float().cpu().numpy() for x in (latent["samples"], frames)))


def start(flags: str, base: Path) -> Host:
    """A ComfyUI on a pretended card. It reads the flags as its main.py does."""
    npu.install()
    comfyui = find_comfyui()
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", *flags.split()]
    importlib.import_module("comfy.options").enable_args_parsing()
    with npu.found_by_comfyui():
        importlib.import_module("comfy.model_management")
    host = Host(comfyui, base, extra_nodes=False, cpu=False)
    given = importlib.import_module("comfy.cli_args").args
    caches = {"CLASSIC": given.cache_classic, "LRU": given.cache_lru, "NONE": given.cache_none}
    host.use_cache(next((kind for kind, chosen in caches.items() if chosen), "RAM_PRESSURE"))
    return host


def graph(seconds: float, steps: int, names: dict[str, str]) -> Graph:
    """Animate Portrait, and Sample Segment for the first segment of the same clip."""
    parts = build(seconds, **names)
    settings = {"model": parts.model, "identity": parts.identity, "speech": parts.speech}
    settings |= {"steps": steps, "guidance": 3.5, "sampler": "sde-dpm++2m", "seed": 7}
    parts.graph.keep(parts.graph("Hallo3AnimatePortrait", vae=parts.vae, **settings))
    parts.graph.keep(parts.graph("Hallo3SampleSegment", segment_index=0, **settings))
    return parts.graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("flags", nargs="*", help="after --, each in quotes (all flags)")
    parser.add_argument("--seconds", type=float, default=2.5, help="of the speech (%(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="sampling steps (%(default)s)")
    parser.add_argument("--small-vae", action="store_true", help="a quick VAE of random weights")
    options = parser.parse_args()
    flags = options.flags or FLAGS
    made = clips([EXACT, *flags], options.seconds, options.steps, options.small_vae)
    plain = next(made)
    print("| flag | latents off by | frames off by |\n|---|---|---|")
    for flag, clip in zip(flags, made, strict=True):
        if isinstance(clip, str):
            print(f"| `{flag}` | {clip} | |", flush=True)
        else:
            latents, frames = clip.change(plain)
            print(f"| `{flag}` | {latents:.2%} | {frames:.2%} |", flush=True)


if __name__ == "__main__":
    main()
