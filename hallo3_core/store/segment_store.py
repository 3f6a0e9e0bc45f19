"""Finished segments on disk, so that no segment is computed twice, even after a crash.

A segment is saved in three steps: its latents after sampling, which takes longest, all results
after decoding, and its piece of the video in one encoding.
"""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from .fingerprint import fingerprint

GB = 10**9
"""Disks are counted in these units. Memory is not (`memory/plan.py`)."""
SIZE = 20 * GB
SEGMENT, PIECE, LATENTS, PARTIAL = ".segment", ".piece", ".latents", ".partial"
DAY = 24 * 60 * 60

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedSegment:
    """The results of a segment, and the start of the next segment.

    `latents` is (1, 16, 13, height / 8, width / 8), float32. `motion` is (1, 16, 1, height / 8,
    width / 8), float32: the motion latents that the next segment starts from, empty for the last
    segment. `last` is the last frame, (height, width, 3) in [0, 1].
    """

    latents: Tensor
    motion: Tensor
    last: Tensor


class SegmentStore:
    """A folder of finished segments, at most `size` bytes. The least recently used go first.

    A file that cannot be read counts as missing. If a file cannot be written, the store logs one
    warning and is no longer `usable`. The video continues without the store.
    """

    def __init__(self, folder: Path, size: int = SIZE):
        self.folder, self.size = folder, size
        self.usable = size > 0

    @classmethod
    def of_the_user(cls, folder: Path, size: int = SIZE) -> "SegmentStore":
        """The store of the user: HALLO3_STORE replaces `folder`, and HALLO3_STORE_GB `size`.

        Raises `InputError` if HALLO3_STORE_GB is not a number.
        """
        named = Path(os.environ.get("HALLO3_STORE") or folder)
        gigabytes = os.environ.get("HALLO3_STORE_GB") or size / GB
        try:
            return cls(named, int(float(gigabytes) * GB))
        except (ValueError, OverflowError):
            raise InputError(
                f"HALLO3_STORE_GB is '{gigabytes}': set it to a number of GB, such as 20."
            ) from None

    def segment(self, name: str) -> FinishedSegment | None:
        """A finished segment; None if it is not in the store."""
        tensors = self._read(self.folder / f"{name}{SEGMENT}")
        return FinishedSegment(**tensors) if tensors else None

    def latents(self, name: str) -> Tensor | None:
        """The latents of a segment that is sampled but not decoded; None if there are none."""
        tensors = self._read(self.folder / f"{name}{LATENTS}")
        return tensors["latents"] if tensors else None

    def put_segment(self, name: str, segment: FinishedSegment) -> None:
        tensors = {field.name: getattr(segment, field.name) for field in fields(segment)}
        self._write(self.folder / f"{name}{SEGMENT}", tensors)
        with suppress(OSError):
            (self.folder / f"{name}{LATENTS}").unlink(missing_ok=True)

    def put_latents(self, name: str, latents: Tensor) -> None:
        self._write(self.folder / f"{name}{LATENTS}", {"latents": latents})

    def piece(self, name: str) -> bytes | None:
        """An encoded piece of a video; None if it is not in the store."""
        tensors = self._read(self.folder / f"{name}{PIECE}")
        return tensors["piece"].numpy().tobytes() if tensors else None

    def put_piece(self, name: str, piece: bytes) -> None:
        content = torch.frombuffer(bytearray(piece), dtype=torch.uint8)
        self._write(self.folder / f"{name}{PIECE}", {"piece": content})

    def files(self) -> list[Path]:
        """All files of the store, the least recently used first."""
        endings = (SEGMENT, PIECE, LATENTS, PARTIAL)
        with suppress(OSError):
            found = [path for path in self.folder.iterdir() if path.suffix in endings]
            return sorted(found, key=lambda path: path.stat().st_mtime)
        return []

    def count(self) -> tuple[int, int]:
        """How many segments there are, finished or only sampled, and the bytes of all files."""
        files = self.files()
        segments = sum(path.suffix in (SEGMENT, LATENTS) for path in files)
        return segments, sum(path.stat().st_size for path in files)

    def empty(self) -> None:
        """Delete all segments; other files in the folder stay. Raises `InputError` if it fails."""
        for path in self.files():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"{path} cannot be deleted ({error.strerror}): check the permissions of this "
                    "folder."
                ) from error

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        if not self.usable:
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                if (file.metadata() or {}).get("fingerprint") != fingerprint(tensors):
                    raise SafetensorError("changed")
            os.utime(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            logger.warning("%s is damaged (%s). The segment is computed again.", path, error)
            return None
        return tensors

    def _write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write a complete file or none: it has a temporary name until it is on the disk."""
        if not self.usable:
            return
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        partial = path.with_name(f"{uuid4().hex}{PARTIAL}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, {"fingerprint": fingerprint(tensors)})
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
            self._make_room()
        except (SafetensorError, OSError) as error:
            self.usable = False
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            logger.warning(
                "Finished segments cannot be saved in %s (%s). The video continues without "
                "saving them. Free space there, or set HALLO3_STORE to another folder.",
                self.folder,
                error,
            )

    def _make_room(self) -> None:
        """Delete the least recently used files until the store is small enough.

        Partial files that are older than a day come from killed programs, and are deleted too.
        """
        files = self.files()
        sizes = {path: path.stat().st_size for path in files}
        total, yesterday = sum(sizes.values()), time.time() - DAY
        for path in files:
            old = path.suffix == PARTIAL and path.stat().st_mtime < yesterday
            if old or total > self.size:
                path.unlink(missing_ok=True)
                total -= sizes[path]
