"""Time, memory and error of a conversion: `python -m benchmarks.conversion FOLDER` (Linux).

Makes a checkpoint of the released width with a few layers of random weights in FOLDER. 4 layers
take 5 GB, and the results as much again. Converts it with the command line and reads the anonymous
memory of that process, without pages of mapped files. Then compares the predictions of the source
and of the results, on a canvas of 96 x 64.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from hallo3_core.model.loading import load_transformers
from hallo3_core.network.config import LATENT_FRAMES, Hallo3Config

from .sizes import make_checkpoint

CANVAS = (8, 12)
"""Height and width of the latents. They are small: only the width of the networks matters."""


@torch.no_grad()
def prediction(file: Path) -> torch.Tensor:
    """v of noise as the denoiser in a file predicts it, in bf16."""
    torch.manual_seed(0)
    denoiser, *_ = load_transformers(file, torch.bfloat16)
    config = denoiser.config

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.bfloat16)

    shape = (1, config.latent_channels, LATENT_FRAMES, *CANVAS)
    tokens = noise(1, config.frame_tokens, config.width)
    audio = noise(1, LATENT_FRAMES, config.audio_tokens, config.audio_width)
    conditions = denoiser.conditions(
        noise(1, config.text_tokens, config.text_width),
        noise(*shape),
        denoiser.reference_keys_values([tokens] * config.layers),
        denoiser.face_keys_values(noise(1, config.face_channels)),
        audio,
    )
    return denoiser(noise(*shape), torch.tensor([500]), conditions).float()


def anonymous_memory(process: subprocess.Popen) -> int:
    """Anonymous memory of a process in MB."""
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
        height, width = CANVAS
        config = Hallo3Config(layers=options.layers, latent_height=height, latent_width=width)
        make_checkpoint(source, config, torch.bfloat16)
    print(f"{source.stat().st_size / 1e9:.1f} GB, {options.layers} layers", flush=True)
    for dtype in ("bf16", "fp8_e4m3fn"):
        command = [sys.executable, "-m", "hallo3_core", "convert", source, options.folder]
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen([*command, "--dtype", dtype])
        while process.poll() is None:
            peak = max(peak, anonymous_memory(process))
            time.sleep(0.05)
        print(f"{dtype}: {time.perf_counter() - start:.0f} s, anonymous memory {peak} MB at most")
    expected = prediction(source)
    for dtype in ("bf16", "fp8_e4m3fn"):
        found = prediction(options.folder / f"diffusion_models/hallo3_dit_{dtype}.safetensors")
        error = (found - expected).norm() / expected.norm()
        print(f"{dtype}: prediction off by {error:.3%}", flush=True)


if __name__ == "__main__":
    main()
