"""`store`: count the finished segments on disk, or delete them."""

import argparse
from pathlib import Path

from ..store.segment_store import GB, SegmentStore

STORE = Path.home() / ".cache" / "hallo3" / "segments"
"""Where the command line saves finished segments."""
STOPPED = "Stopped."


def add(parser: argparse.ArgumentParser) -> None:
    usual = "HALLO3_STORE, or ~/.cache/hallo3/segments"
    parser.add_argument("--folder", type=Path, help=f"the store (default: {usual})")
    parser.add_argument("--empty", action="store_true", help="delete all finished segments")


def run(options: argparse.Namespace) -> int:
    store = SegmentStore.of_the_user(STORE)
    store.folder = options.folder or store.folder
    if options.empty:
        store.empty()
    segments, size = store.count()
    print(f"{store.folder}: {segments} segments, {size / GB:.2f} of {store.size / GB:g} GB")
    return 0
