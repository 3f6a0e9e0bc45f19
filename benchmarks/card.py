"""Time and memory of sampling and decoding on a card: `python -m benchmarks.card --save FILE`.

A guided step at full size with random weights, both branches in one batch: unchanged, compiled,
with weights in fp8, and with products in fp8. Only one of them is on the card at a time.
`--size built-in --device cpu` tests the script without a card.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .bench import Bench, flops, interleaved, matmul_peak
from .fp8 import multiply_in_fp8, store_in_fp8
from .sizes import SIZES, VAES

GB = 1e9


WAYS: dict[str, tuple[Callable[[nn.Module], None], bool]] = {
    "as it is": (lambda layers: None, False),
    "compiled": (lambda layers: None, True),
    "fp8 weights": (store_in_fp8, False),
    "fp8 products": (multiply_in_fp8, False),
    "fp8 products, compiled": (multiply_in_fp8, True),
}
"""How the layers of the denoiser are changed, and whether they are compiled."""


class Memory:
    """The peak memory of a card since it was made. It is unknown for a CPU."""

    def __init__(self, device: torch.device):
        self.known = device.type == "cuda"
        if self.known:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def __str__(self) -> str:
        return f"{torch.cuda.max_memory_allocated() / GB:.1f} GB" if self.known else "unknown"


@torch.no_grad()
def measure(size: str, device: torch.device, dtype: torch.dtype, rounds: int) -> list[str]:
    peak = matmul_peak(device, dtype)
    lines = [
        f"{size}: matrix products reach {peak / 1e12:.1f} TFLOP/s in {dtype}",
        "",
        "| guided step | seconds | of the matmul peak | memory | error |",
        "|---|---|---|---|---|",
    ]
    counted = exact = None
    for name, (change, compiled) in WAYS.items():
        bench = Bench(SIZES[size], VAES[size], device, dtype)
        del bench.plain, bench.lean
        layers = bench.denoiser.layers
        change(layers)
        if compiled:
            for layer in layers:
                layer.compile(dynamic=False)
        step = bench.ours(True)
        counted = counted or flops(step)
        del bench.projector
        memory = Memory(device)
        found = step().float().cpu()
        exact = found if exact is None else exact
        error = (found - exact).abs().max() / exact.std()
        timing = interleaved({name: step}, rounds)[name]
        share = counted / timing.median / peak
        lines.append(f"| {name} | {timing} | {share:.0%} | {memory} | {error:.0e} |")
        del bench, step, layers
    lines += ["", "| once a segment | seconds | memory |", "|---|---|---|"]
    bench = Bench(SIZES[size], VAES[size], device, dtype)
    del bench.plain, bench.denoiser, bench.projector
    memory = Memory(device)
    timing = interleaved({"decoding": bench.lean_decode}, rounds)["decoding"]
    return [*lines, f"| decoding | {timing} | {memory} |", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    lines = [f"{where}, torch {torch.__version__}, {options.rounds} rounds", ""]
    lines += measure(options.size, device, getattr(torch, options.dtype), options.rounds)
    text = "\n".join(lines)
    print(text)
    if options.save:
        options.save.write_text(text)


if __name__ == "__main__":
    main()
