"""`convert`: make the published files ready for ComfyUI."""

import argparse
from pathlib import Path

from tqdm import tqdm

from ..checkpoints.reading import read_weights
from ..model.comfyui_folder import comfyui_folder
from ..model.convert import CONVERTED, convert, find_sources, plan

STOPPED = "Stopped; the files that are there are whole."


def add(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("convert", help="make published files ready for ComfyUI")
    source = "a published file, or the folder of them (default: ComfyUI's models)"
    parser.add_argument("source", type=Path, nargs="?", help=source)
    parser.add_argument("folder", type=Path, nargs="?", help="(default: ComfyUI's models)")
    parser.add_argument("--dtype", choices=CONVERTED, default="bf16", help="(%(default)s)")
    parser.add_argument("--list", action="store_true", help="only say where every tensor goes")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def run(options: argparse.Namespace) -> int:
    sources = find_sources(options.source or comfyui_folder("models"))
    folder = options.folder or comfyui_folder("models")
    plans = [plan(file, read_weights(file), options.dtype) for file in sources]
    if options.list:
        for made in plans:
            print("\n".join(made.lines()))
        return 0
    size = 2 * sum(made.bytes for made in plans)
    with tqdm(total=size, unit="B", unit_scale=True, desc="checking, writing") as bar:
        files = [
            file for made in plans for file in convert(made, folder, bar.update, options.overwrite)
        ]
    for file in files:
        print(f"{file} ({file.stat().st_size / 1e9:.2f} GB)")
    return 0
