"""Time and memory of a conversion: `python -m benchmarks.conversion FOLDER` (Linux).

Makes a checkpoint of the released width with a few layers of random weights in FOLDER (5 GB for 4
layers, and as much again for the results), converts it by the command line, and reads that
process's anonymous memory all the while; pages of mapped files do not count.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from hallo3_core import checkpoint
from hallo3_core.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.model import NETWORKS


def make_checkpoint(path: Path, config: Hallo3Config) -> None:
    """Random weights in bf16 under the published names."""
    weights = {}
    for network, prefix, table in NETWORKS:
        state = network(config, device="meta").state_dict()
        names = checkpoint.published_names(state, prefix, table)
        for ours, value in state.items():
            weights[names[ours]] = torch.empty(value.shape, dtype=torch.bfloat16).normal_(std=0.02)
    rows = LATENT_FRAMES * config.frame_tokens
    weights[checkpoint.ROTARY_TABLE] = torch.zeros(rows, config.head_width, dtype=torch.bfloat16)
    torch.save({"module": weights}, path)


def anonymous_memory(process: subprocess.Popen) -> int:
    """MB that a process has for itself."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) // 1024 if lines else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    source = options.folder / "mp_rank_00_model_states.pt"
    if not source.exists():
        make_checkpoint(source, Hallo3Config(layers=options.layers))
    print(f"{source.stat().st_size / 1e9:.1f} GB, {options.layers} layers", flush=True)
    for dtype in ("bf16", "fp8_e4m3fn"):
        command = [sys.executable, "-m", "hallo3_core", "convert", source, options.folder]
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen([*command, "--dtype", dtype])
        while process.poll() is None:
            peak = max(peak, anonymous_memory(process))
            time.sleep(0.05)
        print(f"{dtype}: {time.perf_counter() - start:.0f} s, anonymous memory {peak} MB at most")


if __name__ == "__main__":
    main()
