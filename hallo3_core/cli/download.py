"""`download`: download the released files."""

import argparse
from pathlib import Path

from ..model.download import FILES, TEXT_ENCODERS, download
from ..model.finding import comfyui_folder

STOPPED = "Stopped. Start the same command again to continue."


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", help="output (default: ComfyUI's models)")
    parser.add_argument(
        "--text-encoder", choices=TEXT_ENCODERS, help="also download T5, for prompts"
    )
    parser.add_argument("--list", action="store_true", help="only list what would be downloaded")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(options: argparse.Namespace) -> int:
    folder = options.folder or comfyui_folder("models")
    files = (*FILES, *TEXT_ENCODERS.get(options.text_encoder, ()))
    if options.list:
        for file in files:
            size = f"{file.gigabytes:.2f} GB, " if file.gigabytes else ""
            print(f"{file.place(folder)}: {size}{file.licence}, {file.repository}")
        return 0
    for path in download(files, folder, options.overwrite):
        print(path)
    return 0
