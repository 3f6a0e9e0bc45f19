"""`examples`: copy the example pictures and sounds."""

import argparse
from pathlib import Path

from ..builtin.examples import write_examples
from ..errors import InputError
from ..model.finding import comfyui_folder

STOPPED = "Stopped."


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", help="output (default: ComfyUI's input)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(options: argparse.Namespace) -> int:
    folder = options.folder or comfyui_folder("input")
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: create it, or give another one.")
    for path, written in write_examples(folder, options.overwrite):
        kept = " exists already and is kept; --overwrite replaces it"
        print(f"{path}{'' if written else kept}")
    return 0
