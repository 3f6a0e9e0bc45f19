"""Where the time of a segment goes: `python -m benchmarks`.

Every part is timed on its own (median of several runs, after one that does not count) at two
sizes of model with random weights. A segment of 50 guided steps is then 100 denoiser calls and
one of each of the others.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from hallo3_core import builtin
from hallo3_core.animate import STEPS, decode_images
from hallo3_core.conditioning import AudioProjector
from hallo3_core.config import (
    LATENT_FRAMES,
    MOTION_FRAMES,
    NEW_FRAMES,
    SEGMENT_FRAMES,
    Hallo3Config,
)
from hallo3_core.model import Hallo3
from hallo3_core.noise import SeededNoise
from hallo3_core.segments import motion_latents, segment_windows
from hallo3_core.speech import FRAME_SAMPLES, encode_speech
from hallo3_core.transformer import Conditions, Denoiser, ReferenceNetwork

SIZES = {
    "built-in": builtin.CONFIG,
    "mid-size": replace(
        builtin.CONFIG,
        layers=8,
        heads=8,
        time_width=128,
        latent_height=32,
        latent_width=48,
        audio_tokens=8,
        audio_width=64,
        face_width=128,
    ),
}


def random_model(config: Hallo3Config) -> Hallo3:
    """The built-in model with transformers of another size."""
    torch.manual_seed(0)
    networks = [network(config) for network in (Denoiser, ReferenceNetwork, AudioProjector)]
    small = builtin.load()
    return Hallo3(*networks, small.vae, small.speech_encoder, small.text_encoder)


def seconds(work: Callable[[], object], runs: int) -> float:
    """Median time of `work`, after one run that does not count."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


@torch.no_grad()
def measure(config: Hallo3Config, device: str, runs: int) -> dict[str, float]:
    """Seconds of each part of a segment."""
    model = random_model(config).to(device, torch.float32)
    denoiser, noise = model.denoiser, SeededNoise(0)
    latent_size = (config.latent_height, config.latent_width)
    shape = (1, config.latent_channels, LATENT_FRAMES, *latent_size)
    latents = torch.randn(shape, device=device)
    portrait = torch.rand(1, 3, *config.canvas, device=device) * 2 - 1
    motion_frames = portrait[:, :, None].expand(-1, -1, MOTION_FRAMES, -1, -1)
    waveform = torch.randn(SEGMENT_FRAMES * FRAME_SAMPLES)
    speech = encode_speech(model.speech_encoder, waveform)
    windows = segment_windows(speech.features, 0).to(device)
    features, _ = model.reference_network(latents[:, :, :1])
    face = torch.zeros(1, config.face_channels, device=device)
    conditions = Conditions(
        torch.zeros(1, config.text_tokens, config.text_width, device=device),
        latents,
        denoiser.reference_keys_values(features),
        denoiser.face_keys_values(face),
        denoiser.audio_keys_values(model.audio_projector(windows)),
    )
    timesteps = torch.full((1,), 500, device=device)
    parts = {
        "denoiser call": lambda: denoiser(latents, timesteps, conditions),
        "audio tokens, keys, values": lambda: denoiser.audio_keys_values(
            model.audio_projector(windows)
        ),
        "speech features": lambda: encode_speech(model.speech_encoder, waveform),
        "VAE encodes motion": lambda: motion_latents(
            model.vae, portrait, motion_frames, noise.stream("motion")
        ),
        "VAE decodes": lambda: decode_images(model.vae, latents, SEGMENT_FRAMES),
    }
    return {name: seconds(work, runs) for name, work in parts.items()}


def table(name: str, config: Hallo3Config, times: dict[str, float]) -> str:
    height, width = config.canvas
    calls = {part: 2 * STEPS if part == "denoiser call" else 1 for part in times}
    spent = {part: times[part] * calls[part] for part in times}
    segment = sum(spent.values())
    rows = [
        f"| {part} | {times[part]:.3f} | {calls[part]} | {spent[part] / segment:.1%} |"
        for part in times
    ]
    return "\n".join(
        [
            f"{name}: {config.layers} layers of {config.width}, canvas {height} x {width}",
            "",
            "| part | seconds | times | share of the segment |",
            "|---|---|---|---|",
            *rows,
            f"| **segment of {NEW_FRAMES} frames** | **{segment:.1f}** | | |",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, torch {torch.__version__}, float32, median of {options.runs}\n")
    for name, config in SIZES.items():
        print(table(name, config, measure(config, options.device, options.runs)))


if __name__ == "__main__":
    main()
