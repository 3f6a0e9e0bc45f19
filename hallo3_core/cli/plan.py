"""`plan`: say how much memory a model needs."""

import argparse
from pathlib import Path

from ..errors import InputError
from ..memory.plan import GB, RESERVED
from ..model.hallo3 import plan_for
from ..network.weight_formats import FORMATS

CARDS = (8, 12, 16, 24, 48, 80)
PLANNED = ("bf16", "fp8", "nvfp4")
STOPPED = "Stopped."


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="as for animate (default: the released model)")
    parser.add_argument(
        "--memory", type=float, nargs="+", default=CARDS, help="memory of the cards, in GB"
    )
    parser.add_argument(
        "--dtype",
        choices=FORMATS,
        nargs="+",
        default=PLANNED,
        help="formats of the weights",
    )


def run(options: argparse.Namespace) -> int:
    print("| memory | weights | portrait | speech | sampling | decoding | motion | how |")
    print("|---|---|---|---|---|---|---|---|")
    for memory in options.memory:
        for kind in options.dtype:
            start = f"| {memory:g} GB | {kind} | "
            try:
                plan = plan_for(options.model, kind, memory * GB - RESERVED)
            except InputError as error:
                print(f"{start}| | | | | {error} |")
                continue
            peaks = (f"{plan.peak(stage) / GB:.1f} GB" for stage in plan.stages)
            print(start + " | ".join((*peaks, plan.how)) + " |")
    return 0
