"""The command line: `python -m hallo3_core COMMAND`."""

import argparse
import signal
import sys
import warnings

from PIL import Image

from ..errors import BAD_INPUT, INTERRUPTED, InputError
from . import animate, check, convert, download, evaluate, examples, plan, store

COMMANDS = (animate, examples, convert, check, plan, store, download, evaluate)
"""Each has `add`, which defines its options, and `run`, which returns the exit status.

`STOPPED` is the line printed after Ctrl-C.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hallo3_core")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(commands).set_defaults(run=command.run, stopped=command.STOPPED)
    return parser.parse_args(arguments)


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # `read_image` raises an error that says the same
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    options = parse()
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(options.stopped)
        return INTERRUPTED
