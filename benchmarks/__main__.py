"""Compares our denoiser and segment with the published algorithm: `python -m benchmarks`.

Both have the same random weights and take turns, so that other work on the machine slows both. The
times are medians of several rounds, with the smallest and the largest. `--size full` needs a GPU.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hallo3_core.settings import Settings
from training.peak import Peak

from .bench import Bench, flops, interleaved, matmul_peak
from .published import Savings
from .sizes import SIZES, VAES

SAVINGS = {
    "published": Savings(),
    "+ no queries of the reference": Savings(no_reference_queries=True),
    "+ projections kept": Savings(no_reference_queries=True, kept_projections=True),
    "+ reference kept": Savings(True, True, True),
}


def peak_bytes(bench: Bench, way: Callable[[], Callable[[], Tensor]]) -> int:
    """Bytes of a guided step's tensors and of those kept between steps, without the weights."""
    with Peak(bench.denoiser) as peak:
        work = way()
        work()
    return peak.bytes


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
    before = Settings.steps * published + rest["VAE decodes, diffusers"].median + encode
    ours = min(times["ours, two calls"].median, times["ours, one batch"].median)
    after = Settings.steps * ours + rest["VAE decodes, ours"].median + encode
    after += rest["audio keys and values"].median
    lines += [
        "",
        f"Segment of {Settings.steps} steps: {before:.1f} s published, {after:.1f} s ours, "
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
