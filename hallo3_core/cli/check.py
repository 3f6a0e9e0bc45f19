"""`check`: say what weights files are, and whether they can be loaded."""

import argparse
from pathlib import Path

from ..errors import BAD_INPUT, InputError
from ..model.check import check, installed_files
from ..model.finding import comfyui_folder

STOPPED = "Stopped."


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="*", help="(default: those in ComfyUI's models)")


def run(options: argparse.Namespace) -> int:
    status = 0
    for file in options.files or installed_files(comfyui_folder("models")):
        try:
            print(f"{file}: " + "\n  ".join(check(file).lines()))
        except InputError as error:
            print(error)
            status = BAD_INPUT
    return status
