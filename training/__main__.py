"""Train the built-in model from scratch, or fine-tune a model on real clips.

    python -m training builtin RUN
    python -m training measure RUN
    python -m training measure-pairs RUN
    python -m training measure-redub RUN
    python -m training drift RUN
    python -m training sensitivity RUN [--formats nvfp4 ...] [--apart]
    python -m training finetune RUN --model FOLDER --clips FOLDER [--unseen FOLDER] [--lora RANK]
    python -m training distill RUN --clips FOLDER [--model FOLDER] [--lora RANK] [--steps 4]
    python -m training memory

RUN is a folder for checkpoints and losses. Start a stopped run again, and it continues.
"""

import argparse
import logging
import sys
from itertools import chain
from math import inf
from pathlib import Path

from hallo3_core import builtin
from hallo3_core.cli.ending import ended
from hallo3_core.memory.device import choose_device
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.weight_formats import FORMATS
from hallo3_core.settings import Settings

from . import drift, measure_pairs, measure_redub, sensitivity
from .builtin_model import train_builtin
from .denoiser import DISTILLED
from .distill import METHODS, STEPS, distill
from .finetune import RANK, STAGES, finetune, memory_table
from .measure import CASES, CLIPS, FEW_CASES, report
from .measured import folder_of
from .sheet import sheets


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return number


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser(
        "builtin", help="train the built-in model from scratch, on drawings"
    )
    making.add_argument("run", type=Path)
    making.add_argument("--weights", type=Path, help="folder for its weights (default: the pack)")
    judging = commands.add_parser("measure", help="measure the built-in model on the test split")
    judging.add_argument("run", type=Path)
    judging.add_argument("--clips", type=positive, default=CLIPS, help="(%(default)s)")
    pairing = commands.add_parser(
        "measure-pairs", help="measure the built-in model on pictures of two people who speak"
    )
    pairing.add_argument("run", type=Path)
    pairing.add_argument(
        "--pairs", type=positive, default=measure_pairs.PAIRS, help="(%(default)s)"
    )
    dubbing = commands.add_parser(
        "measure-redub", help="measure how well drawn videos get other words"
    )
    dubbing.add_argument("run", type=Path)
    dubbing.add_argument(
        "--clips", type=positive, default=measure_redub.CLIPS, help="(%(default)s)"
    )
    lasting = commands.add_parser(
        "drift", help="measure how the built-in model drifts in a long video"
    )
    add_drifting(lasting)
    add_quantizing(commands.add_parser("sensitivity", help="measure what quantised weights change"))
    tuning = commands.add_parser(
        "finetune", help="fine-tune a converted or published model on clips"
    )
    tuning.add_argument("run", type=Path)
    add_clips(tuning)
    tuning.add_argument("--stage", choices=STAGES, default="speech", help="(%(default)s)")
    tuning.add_argument(
        "--steps", type=positive, default=30_000, help="(%(default)s, as published)"
    )
    tuning.add_argument("--rate", type=above_zero, default=1e-5, help="(%(default)s, as published)")
    tuning.add_argument("--batch", type=positive, default=1, help="(%(default)s, as published)")
    tuning.add_argument(
        "--lora", type=positive, help="train a LoRA of this rank instead of all weights"
    )
    add_distilling(commands.add_parser("distill", help="train a model to need few steps"))
    counting = commands.add_parser(
        "memory", help="how much memory fine-tuning the released model takes"
    )
    counting.add_argument(
        "--lora", type=positive, default=RANK, help="rank of the LoRA (%(default)s)"
    )
    counting.add_argument("--batch", type=positive, default=1, help="(%(default)s)")
    judging.add_argument("--undistilled", action="store_true", help="the model of 50 steps")
    for command in (judging, pairing, dubbing, lasting):
        command.add_argument("--device", help="cpu, cuda, ... (default: cuda if there is one)")
    return parser.parse_args()


def add_drifting(command: argparse.ArgumentParser) -> None:
    argument = command.add_argument
    argument("run", type=Path)
    argument("--seconds", type=above_zero, default=drift.SECONDS, help="(%(default)s)")
    argument("--clips", type=positive, default=1, help="(%(default)s)")
    argument(
        "--anchor",
        type=float,
        nargs="+",
        default=[Settings.colour_anchor],
        help="one video for each of these colour anchors (%(default)s)",
    )
    argument("--case", choices=CASES | FEW_CASES, default="4 steps", help="(%(default)s)")


def add_quantizing(command: argparse.ArgumentParser) -> None:
    argument = command.add_argument
    quantized = [key for key, kind in FORMATS.items() if kind.layout]
    argument("run", type=Path)
    argument("--formats", choices=quantized, nargs="+", default=quantized)
    argument("--clips", type=positive, default=sensitivity.CLIPS, help="(%(default)s)")
    argument("--apart", action="store_true", help="also quantise each kind of matrix alone")


def add_distilling(command: argparse.ArgumentParser) -> None:
    argument = command.add_argument
    argument("run", type=Path)
    add_clips(command)
    argument("--method", choices=METHODS, default=METHODS[0], help="(%(default)s)")
    argument("--steps", type=positive, default=STEPS, help="of it (%(default)s)")
    argument("--guidance", type=float, default=3.5, help="of the teacher (%(default)s)")
    argument(
        "--trajectories", type=positive, default=4, help="of the teacher, a shot (%(default)s)"
    )
    argument(
        "--training-steps", type=positive, default=DISTILLED.settings.steps, help="(%(default)s)"
    )
    argument("--rate", type=above_zero, default=DISTILLED.settings.rate, help="(%(default)s)")
    argument("--batch", type=positive, default=4, help="(%(default)s)")
    argument("--lora", type=positive, help="the rank of a LoRA, else all weights")


def add_clips(command: argparse.ArgumentParser) -> None:
    """Which model is trained further, and on what."""
    argument = command.add_argument
    argument("--model", type=Path, help="as for animate (default: the built-in model)")
    argument("--clips", type=Path, required=True, help="a folder of videos with speech")
    argument("--unseen", type=Path, help="a folder of other clips; only their loss is logged")
    argument("--face-models", type=Path, help="folder of antelopev2, for face embeddings")


def builtin_on(device: str | None, distilled: bool, people: int = 1) -> Hallo3:
    return builtin.load(distilled, people).placed(choose_device(device))


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return ended(run)


def run() -> int:
    options = parse()
    match options.command:
        case "builtin":
            lines = train_builtin(options.run, options.weights)
        case "measure":
            model = builtin_on(options.device, not options.undistilled)
            cases = CASES if options.undistilled else FEW_CASES
            folder, clips = folder_of(model, options.run), options.clips
            table = report(model, folder, cases, clips)
            lines = chain(table, sheets(folder, clips, cases))
        case "measure-pairs":
            model = builtin_on(options.device, distilled=True, people=2)
            lines = measure_pairs.report(model, options.run, options.pairs)
        case "measure-redub":
            model = builtin_on(options.device, distilled=True)
            lines = measure_redub.report(model, options.run, options.clips)
        case "drift":
            case = (CASES | FEW_CASES)[options.case]
            model = builtin_on(options.device, options.case in FEW_CASES)
            folder = folder_of(model, options.run)
            long = options.seconds, options.clips, options.anchor
            lines = drift.report(model, folder, case, *long)
        case "sensitivity":
            lines = sensitivity.report(options.run, options.formats, options.clips, options.apart)
        case "finetune":
            lines = finetune(options)
        case "distill":
            lines = distill(options)
        case "memory":
            lines = memory_table(options.lora, options.batch)
    for line in lines:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
