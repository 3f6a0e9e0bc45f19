"""Time, memory and error of a conversion: `python -m benchmarks.conversion FOLDER` (Linux).

Makes a checkpoint of the released width with a few layers of random weights in FOLDER. 4 layers
take 5 GB. Converts it to each format with the command line, and reads the anonymous memory of that
process, without pages of mapped files. Then compares the predictions of the source and of the
result, on a canvas of 96 x 64, and removes the result.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from hallo3_core.model.loading import load_transformers
from hallo3_core.network.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.network.weight_formats import STORED

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
    parser.add_argument("--formats", choices=STORED, nargs="+", default=STORED)
    options = parser.parse_args()
    source = options.folder / "mp_rank_00_model_states.pt"
    if not source.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        height, width = CANVAS
        config = Hallo3Config(layers=options.layers, latent_height=height, latent_width=width)
        make_checkpoint(source, config, torch.bfloat16)
    print(f"{source.stat().st_size / 1e9:.1f} GB, {options.layers} layers", flush=True)
    expected = prediction(source)
    print("| format | seconds | anonymous memory, MB | size, GB | prediction off by |")
    print("|---|---|---|---|---|")
    for dtype in options.formats:
        result = options.folder / "converted"
        command = [sys.executable, "-m", "hallo3_core", "convert", source, result]
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen([*command, "--dtype", dtype])
        while process.poll() is None:
            peak = max(peak, anonymous_memory(process))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in result.rglob("*.safetensors")) / 1e9
        found = prediction(result / f"diffusion_models/hallo3_dit_{dtype}.safetensors")
        error = (found - expected).norm() / expected.norm()
        print(f"| {dtype} | {seconds:.0f} | {peak} | {size:.2f} | {error:.2%} |", flush=True)
        shutil.rmtree(result)


if __name__ == "__main__":
    main()
