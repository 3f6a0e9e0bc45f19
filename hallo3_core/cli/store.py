"""`store`: count the finished segments on disk, or delete them."""

import argparse
from pathlib import Path

from ..store.segment_store import GB, SegmentStore

STORE = Path.home() / ".cache" / "hallo3" / "segments"
"""Where the command line saves finished segments."""
STOPPED = "Stopped."


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=STORE, help="the store (%(default)s)")
    parser.add_argument("--empty", action="store_true", help="delete all finished segments")


def run(options: argparse.Namespace) -> int:
    store = SegmentStore.of_the_user(options.folder)
    if options.empty:
        store.empty()
    segments, size = store.count()
    print(f"{store.folder}: {segments} segments, {size / GB:.2f} of {store.size / GB:g} GB")
    return 0
