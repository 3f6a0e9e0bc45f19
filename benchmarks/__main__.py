"""Our denoiser and segment against the published algorithm: `python -m benchmarks`.

Both have the same random weights and run side by side, in turn, so that what else the machine does
hits both: medians of several rounds, and the least and most beside them. `--size full` is for a
GPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from hallo3_core import vae
from hallo3_core.animate import STEPS, decode_images
from hallo3_core.conditioning import AudioProjector
from hallo3_core.config import LATENT_FRAMES, MOTION_FRAMES, SEGMENT_FRAMES, Hallo3Config
from hallo3_core.transformer import Conditions, Denoiser
from tests.peak import Peak

from .published import PublishedDenoiser, Savings
from .sizes import SIZES, VAES

SAVINGS = {
    "published": Savings(),
    "+ no queries of the reference": Savings(no_reference_queries=True),
    "+ projections kept": Savings(no_reference_queries=True, kept_projections=True),
    "+ reference kept": Savings(True, True, True),
}


@dataclass
class Bench:
    """Networks and inputs of a size; calls do both branches of a guided step."""

    config: Hallo3Config
    sizes: dict
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self):
        torch.manual_seed(0)
        config = self.config
        with self.device:
            self.denoiser = self.make(Denoiser(config, dtype=self.dtype))
            self.projector = self.make(AudioProjector(config, dtype=self.dtype))
            self.lean = self.make(vae.autoencoder(**self.sizes))
            self.plain = self.make(AutoencoderKLCogVideoX(**self.sizes))
        shape = (config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width)
        self.latents, self.motion = self.noise(1, *shape), self.noise(1, *shape)
        text = self.noise(1, config.text_tokens, config.text_width)
        self.text = torch.cat([torch.zeros_like(text), text])
        self.features = [self.noise(1, config.frame_tokens, config.width)] * config.layers
        self.face = self.noise(1, config.face_channels)
        heard = self.noise(1, SEGMENT_FRAMES, 5, 12, config.audio_channels)
        self.windows = torch.cat([torch.zeros_like(heard), heard])
        self.pixels = self.noise(1, 3, MOTION_FRAMES + 1, *config.canvas)
        self.timestep = torch.tensor([500], device=self.device)

    def make(self, network: nn.Module) -> nn.Module:
        return nn.Module.to(network, self.device, self.dtype).eval().requires_grad_(False)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def published(self, savings: Savings) -> Callable[[], Tensor]:
        denoiser = PublishedDenoiser(self.denoiser, self.projector, savings)

        def twice(x: Tensor) -> Tensor:
            return x.expand(2, *x.shape[1:])

        return lambda: denoiser(
            twice(self.latents),
            twice(self.timestep),
            self.text,
            twice(self.motion),
            self.features,
            twice(self.face),
            self.windows,
        )

    def ours(self, batched: bool) -> Callable[[], Tensor]:
        """A guided step, in one call or in two."""
        denoiser = self.denoiser
        reference = denoiser.reference_keys_values(self.features)
        face = denoiser.face_keys_values(self.face)
        branches = [
            Conditions(
                self.text[row],
                self.motion,
                reference,
                face,
                denoiser.audio_keys_values(self.projector(self.windows[row])),
            )
            for row in (slice(0, 1), slice(1, 2))
        ]
        if batched:
            branches = [branches[0] + branches[1]]
        calls = [(self.latents.expand(len(b.text), -1, -1, -1, -1), b) for b in branches]
        return lambda: torch.cat(
            [denoiser(x, self.timestep.expand(len(x)), given) for x, given in calls]
        )

    def once(self) -> Tensor:
        """What we compute once for a segment: audio keys and values of both branches."""
        return self.denoiser.audio_keys_values(self.projector(self.windows))

    def plain_decode(self) -> Tensor:
        return self.plain.decode(self.latents / vae.LATENT_SCALE).sample

    def lean_decode(self) -> Tensor:
        return decode_images(self.lean, self.latents, SEGMENT_FRAMES)

    def encode(self) -> Tensor:
        return self.lean.encode(self.pixels).latent_dist.mean


@dataclass(frozen=True)
class Timing:
    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({min(self.seconds):.3f} to {max(self.seconds):.3f})"


def interleaved(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Seconds of each work, one after the other in every round; the first does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: Timing(seconds[1:]) for name, seconds in times.items()}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the largest matrix product that is worth the wait."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = min(interleaved({"product": lambda: a @ a}, 5)["product"].seconds)
    return 2 * side**3 / best


def peak_bytes(bench: Bench, way: Callable[[], Callable[[], Tensor]]) -> int:
    """Of the tensors of a guided step, and of what is kept between steps; not of the weights."""
    with Peak(bench.denoiser) as peak:
        work = way()
        work()
    return peak.bytes


def flops(work: Callable[[], object]) -> int:
    """Counted by torch, and attention on the CPU, which it leaves out."""

    def attention(query, key, value, *_, out_shape=None, **options) -> int:
        return sdpa_flop_count(query, key, value)

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        work()
    return counter.get_total_flops()


@torch.no_grad()
def measure(name: str, device: torch.device, dtype: torch.dtype, rounds: int) -> str:
    bench = Bench(SIZES[name], VAES[name], device, dtype)
    ways = {label: partial(bench.published, savings) for label, savings in SAVINGS.items()}
    ways |= {"ours, two calls": partial(bench.ours, False)}
    ways |= {"ours, one batch": partial(bench.ours, True)}
    memory = {label: peak_bytes(bench, way) for label, way in ways.items()}
    steps = {label: way() for label, way in ways.items()}
    expected = steps["published"]()
    errors = {
        label: ((step() - expected).abs().max() / expected.std()) for label, step in steps.items()
    }
    peak = matmul_peak(device, dtype)
    counted = {label: flops(step) for label, step in steps.items()}
    times = interleaved(steps, rounds)
    published = times["published"].median
    config = bench.config
    height, width = config.canvas
    lines = [
        f"{name}: {config.layers} layers of {config.width}, canvas {height} x {width}",
        "",
        "| guided step | seconds | times as fast | TFLOP | of the matmul peak | memory | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, timing in times.items():
        share = counted[label] / timing.median / peak
        lines.append(
            f"| {label} | {timing} | {published / timing.median:.2f} | "
            f"{counted[label] / 1e12:.3f} | {share:.0%} | {memory[label] / 1e6:.0f} MB | "
            f"{errors[label]:.0e} |"
        )
    parts = {
        "VAE decodes, diffusers": bench.plain_decode,
        "VAE decodes, ours": bench.lean_decode,
        "VAE encodes motion": bench.encode,
        "audio keys and values": bench.once,
    }
    rest = interleaved(parts, rounds)
    lines += ["", "| once a segment | seconds |", "|---|---|"]
    lines += [f"| {label} | {timing} |" for label, timing in rest.items()]
    encode = rest["VAE encodes motion"].median
    before = STEPS * published + rest["VAE decodes, diffusers"].median + encode
    ours = min(times["ours, two calls"].median, times["ours, one batch"].median)
    after = STEPS * ours + rest["VAE decodes, ours"].median + encode
    after += rest["audio keys and values"].median
    lines += [
        "",
        f"Segment of {STEPS} steps: {before:.1f} s published, {after:.1f} s ours, "
        f"{before / after:.2f} times as fast.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cuda = torch.cuda.is_available()
    parser.add_argument("--size", choices=SIZES, nargs="+", default=["built-in", "mid"])
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--dtype", default="bfloat16" if cuda else "float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    where = f"CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name()
    tables = [f"{where}, torch {torch.__version__}, {options.dtype}, {options.rounds} rounds\n"]
    print(tables[0])
    for name in options.size:
        tables.append(measure(name, device, dtype, options.rounds))
        print(tables[-1], flush=True)
        if options.save:
            options.save.write_text("\n".join(tables))


if __name__ == "__main__":
    main()
