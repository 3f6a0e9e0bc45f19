"""Training: of the built-in model from nothing, or of a model further on real clips.

    python -m training builtin RUN
    python -m training measure RUN
    python -m training drift RUN
    python -m training finetune RUN --model FOLDER --clips FOLDER [--unseen FOLDER] [--lora RANK]
    python -m training memory

RUN is a folder for checkpoints and losses; a run that was stopped goes on when it is started again.
"""

import argparse
import logging
import sys
from itertools import chain
from pathlib import Path

from hallo3_core import builtin
from hallo3_core.errors import InputError
from hallo3_core.memory.device import choose_device
from hallo3_core.model.hallo3 import Hallo3

from . import drift
from .builtin_model import train_builtin
from .finetune import RANK, STAGES, finetune, memory_table
from .measure import CASES, CLIPS, folder_of, report
from .sheet import sheets


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("builtin", help="the built-in model, on drawings, from nothing")
    making.add_argument("run", type=Path)
    making.add_argument("--weights", type=Path, help="where to put it (default: into the pack)")
    judging = commands.add_parser("measure", help="the built-in model, on the test split")
    judging.add_argument("run", type=Path)
    judging.add_argument("--clips", type=positive, default=CLIPS, help="(%(default)s)")
    lasting = commands.add_parser("drift", help="the built-in model, in a long video")
    lasting.add_argument("run", type=Path)
    lasting.add_argument("--seconds", type=float, default=drift.SECONDS, help="(%(default)s)")
    lasting.add_argument("--case", choices=CASES, default="published", help="(%(default)s)")
    tuning = commands.add_parser("finetune", help="a converted or published model, on clips")
    tuning.add_argument("run", type=Path)
    tuning.add_argument("--model", type=Path, help="as for animate (default: the built-in one)")
    tuning.add_argument("--clips", type=Path, required=True, help="a folder of videos with speech")
    tuning.add_argument(
        "--unseen", type=Path, help="a folder of other clips, for their losses in the log alone"
    )
    tuning.add_argument("--face-models", type=Path, help="folder of antelopev2, for embeddings")
    tuning.add_argument("--stage", choices=STAGES, default="speech", help="(%(default)s)")
    tuning.add_argument(
        "--steps", type=positive, default=30_000, help="(%(default)s, as published)"
    )
    tuning.add_argument("--rate", type=float, default=1e-5, help="(%(default)s, as published)")
    tuning.add_argument("--batch", type=positive, default=1, help="(%(default)s, as published)")
    tuning.add_argument("--lora", type=positive, help="the rank of a LoRA, instead of all weights")
    counting = commands.add_parser("memory", help="what fine-tuning the released model takes")
    counting.add_argument("--lora", type=positive, default=RANK, help="its rank (%(default)s)")
    counting.add_argument("--batch", type=positive, default=1, help="(%(default)s)")
    for command in (judging, lasting):
        command.add_argument("--device", help="cpu, cuda, ... (default: cuda if there is one)")
    return parser.parse_args()


def builtin_on(device: str | None) -> Hallo3:
    return builtin.load().placed(choose_device(device))


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse()
    try:
        match options.command:
            case "builtin":
                lines = train_builtin(options.run, options.weights)
            case "measure":
                model = builtin_on(options.device)
                folder = folder_of(model, options.run)
                lines = chain(report(model, folder, options.clips), sheets(folder, options.clips))
            case "drift":
                case = CASES[options.case]
                model = builtin_on(options.device)
                folder = folder_of(model, options.run)
                lines = drift.report(model, folder, case, options.seconds)
            case "finetune":
                lines = finetune(options)
            case "memory":
                lines = memory_table(options.lora, options.batch)
        for line in lines:
            print(line, flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
