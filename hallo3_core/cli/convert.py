"""`convert`: convert the published files for ComfyUI."""

import argparse
from pathlib import Path

from tqdm import tqdm

from ..checkpoints.reading import read_networks
from ..model.convert import convert, find_sources, plan
from ..model.finding import comfyui_folder
from ..network.weight_formats import STORED

STOPPED = "Stopped. The files that were written are complete."


def add(parser: argparse.ArgumentParser) -> None:
    source = "a published file, or the folder of these files (default: ComfyUI's models)"
    parser.add_argument("source", type=Path, nargs="?", help=source)
    parser.add_argument("folder", type=Path, nargs="?", help="output (default: ComfyUI's models)")
    parser.add_argument(
        "--dtype",
        type=lambda name: name.replace("float8", "fp8"),  # as ComfyUI names it
        choices=STORED,
        default="bf16",
        help="of the weights (%(default)s)",
    )
    parser.add_argument(
        "--list", action="store_true", help="only list the file that each tensor goes to"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(options: argparse.Namespace) -> int:
    sources = find_sources(options.source or comfyui_folder("models"))
    folder = options.folder or comfyui_folder("models")
    plans = [plan(file, read_networks(file), options.dtype) for file in sources]
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
