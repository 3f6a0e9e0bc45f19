"""`examples`: copy the example pictures and sounds."""

import argparse
from functools import partial
from pathlib import Path

from .. import builtin
from ..errors import InputError
from ..media.outputs import write_file
from ..media.picture import save_picture
from ..media.video import save_sound
from ..model.finding import comfyui_folder

STOPPED = "Stopped."


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", help="output (default: ComfyUI's input)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(options: argparse.Namespace) -> int:
    folder = options.folder or comfyui_folder("input")
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: create it, or give another one.")
    examples = {
        "portrait.png": partial(save_picture, builtin.portrait()),
        "group.png": partial(save_picture, builtin.group()),
        "pair.png": partial(save_picture, builtin.pair()),
        "speech.wav": partial(write_file, content=builtin.SPEECH.read_bytes()),
        "song.wav": partial(save_sound, *builtin.song()),
    }
    for name, save in examples.items():
        path = folder / f"hallo3_{name}"
        if path.exists() and not options.overwrite:
            print(f"{path} exists already and is kept; --overwrite replaces it")
        else:
            save(path=path, overwrite=options.overwrite)
            print(path)
    return 0
