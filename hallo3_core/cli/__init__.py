"""The command line: `python -m hallo3_core COMMAND`."""

import argparse
import gc
import logging
import sys
import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

from PIL import Image

from .ending import ended

COMMANDS = {
    "animate": "make a portrait speak",
    "batch": "do the jobs of a table, on one or more machines",
    "examples": "copy the example pictures and sounds",
    "convert": "convert published files for ComfyUI",
    "check": "say what weights files are, and check them",
    "plan": "say how much memory a model needs",
    "store": "count or delete finished segments on disk",
    "download": "download the released files",
    "evaluate": "measure videos of talking faces",
}
"""The module of each command here has `add`, which defines its options, and `run`, which returns
the exit status. `STOPPED` is the line printed after Ctrl-C, if the error does not say more.
"""

PACKAGE = logging.getLogger(__package__.partition(".cli")[0])
"""The parent of all loggers of the package."""


@cache  # what is frozen is never freed, so this happens once in a process
def imported(name: str) -> ModuleType:
    """The module of a command.

    While it is imported, the garbage collector stands still: it would search all that the libraries
    make again and again, and nothing of that is ever garbage. Frozen, it is not searched later
    either.
    """
    gc.disable()
    module = import_module(f".{name}", __name__)
    gc.freeze()
    gc.enable()
    return module


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options. Only the module of the command is imported: that of `animate` takes seconds."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m hallo3_core")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, says in COMMANDS.items():
        own = commands.add_parser(name, help=says)
        if name in words[:1]:
            command = imported(name)
            command.add(own)
            own.set_defaults(run=command.run, stopped=command.STOPPED)
    return parser.parse_args(words)


def main() -> int:
    # `read_image` raises an error that says the same
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    return ended(run)


def run() -> int:
    options = parse()
    try:
        return options.run(options)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop}" or options.stopped) from None
