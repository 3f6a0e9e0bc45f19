"""ComfyUI's own faster modes on our MODEL: `python -m benchmarks.host_modes`.

Compares each mode with the full result of the same sampler: the time, and the error of the latents
relative to their norm. A first run of two steps, in which torch compiles, does not count.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from .host import ComfyUI, Inputs
from .modes import SIZES
from .sizes import make_checkpoint

CACHE = {"start_percent": 0.15, "end_percent": 0.95, "verbose": False}
MODES = {
    "full": None,
    "EasyCache 0.05": ("EasyCache", {"reuse_threshold": 0.05, **CACHE}),
    "EasyCache 0.2": ("EasyCache", {"reuse_threshold": 0.2, **CACHE}),
    "TorchCompileModel": ("TorchCompileModel", {"backend": "inductor"}),
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, nargs="+", default=list(SIZES))
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        comfyui = ComfyUI(Path(folder) / "comfyui")
        for name in options.size:
            torch.manual_seed(0)
            inputs = Inputs(SIZES[name])
            file = Path(folder) / f"{name}.pt"
            make_checkpoint(file, SIZES[name], torch.float32)
            patcher = comfyui.load(file)
            print(f"{name}, {options.steps} steps\n")
            print("| mode | times as fast | off by |\n|---|---|---|")
            full = seconds = None
            for label, mode in MODES.items():
                patched = patcher
                if mode:
                    node, settings = mode
                    patched = comfyui.nodes[node].execute(patcher, **settings)[0]
                comfyui.sample(patched, inputs, "dpm++2m", 2)
                start = time.perf_counter()
                result = comfyui.sample(patched, inputs, "dpm++2m", options.steps)
                took = time.perf_counter() - start
                full, seconds = (result, took) if full is None else (full, seconds)
                error = (result - full).norm() / full.norm()
                print(f"| {label} | {seconds / took:.2f} | {error:.2%} |", flush=True)
            print()


if __name__ == "__main__":
    main()
