"""Finished segments on disk, so that nothing is computed twice, whatever happens.

A segment is known by all that decides it (`ClipStore.name`). It is written in two steps: its
latents as soon as they are sampled, which takes longest, and all of it when it is decoded.
"""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from uuid import uuid4

import av
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..network.config import FPS, MOTION_FRAMES, NEW_FRAMES
from ..speech.encode import Speech
from ..speech.windows import segment_windows
from .fingerprint import fingerprint

FORMAT = 2
"""To be raised when the same settings come to give another video."""
GB = 10**9
SIZE = 20 * GB
SEGMENT, LATENTS, PARTIAL = ".segment", ".latents", ".partial"
DAY = 24 * 60 * 60
HEARD_AROUND = FPS
"""Frames of sound before and after a segment that count as its own."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedSegment:
    """What a segment leaves to the video and to the segment after it.

    `latents` (1, 16, 13, height / 8, width / 8) and `motion` (1, 16, 1, height / 8, width / 8),
    which the next segment continues (empty after the last one), float32; `last` (height, width, 3)
    in [0, 1], the last frame; `piece`, the new frames as they are in the video, an MP4 as uint8.
    """

    latents: Tensor
    motion: Tensor
    last: Tensor
    piece: Tensor


class SegmentStore:
    """A folder of finished segments, at most `size` bytes of them; the oldest leave first.

    What cannot be read counts as not there. Where nothing can be written, one warning says so and
    the store is no longer `usable`: the video goes on without it.
    """

    def __init__(self, folder: Path, size: int = SIZE):
        self.folder, self.size = folder, size
        self.usable = size > 0

    @classmethod
    def of_the_user(cls, folder: Path, size: int = SIZE) -> "SegmentStore":
        """As given, unless HALLO3_STORE names another folder or HALLO3_STORE_GB another size."""
        folder = os.environ.get("HALLO3_STORE", folder)
        return cls(Path(folder), int(float(os.environ.get("HALLO3_STORE_GB", size / GB)) * GB))

    def segment(self, name: str) -> FinishedSegment | None:
        """A segment that is finished."""
        tensors = self._read(self.folder / f"{name}{SEGMENT}")
        return tensors and FinishedSegment(**tensors)

    def latents(self, name: str) -> Tensor | None:
        """The latents of a segment that is sampled and perhaps not decoded."""
        tensors = self._read(self.folder / f"{name}{LATENTS}")
        return tensors and tensors["latents"]

    def put_segment(self, name: str, segment: FinishedSegment) -> None:
        tensors = {field.name: getattr(segment, field.name) for field in fields(segment)}
        self._write(self.folder / f"{name}{SEGMENT}", tensors)
        with suppress(OSError):
            (self.folder / f"{name}{LATENTS}").unlink(missing_ok=True)

    def put_latents(self, name: str, latents: Tensor) -> None:
        self._write(self.folder / f"{name}{LATENTS}", {"latents": latents})

    def files(self) -> list[Path]:
        """What is there, the longest unused first."""
        endings = (SEGMENT, LATENTS, PARTIAL)
        with suppress(OSError):
            found = [path for path in self.folder.iterdir() if path.suffix in endings]
            return sorted(found, key=lambda path: path.stat().st_mtime)
        return []

    def empty(self) -> None:
        """Delete all segments; nothing else that may lie in the folder."""
        for path in self.files():
            path.unlink(missing_ok=True)

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
            logger.warning("%s is damaged (%s) and is computed anew.", path, error)
            return None
        return tensors

    def _write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Whole or not at all: under a name of its own until it is on the disk."""
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
                "Finished segments cannot be kept in %s (%s): the video goes on without. Make "
                "room there, or let HALLO3_STORE name another folder.",
                self.folder,
                error,
            )

    def _make_room(self) -> None:
        """Remove the longest unused until the size is kept, and what killed programs have left."""
        files = self.files()
        sizes = {path: path.stat().st_size for path in files}
        total, yesterday = sum(sizes.values()), time.time() - DAY
        for path in files:
            old = path.suffix == PARTIAL and path.stat().st_mtime < yesterday
            if old or total > self.size:
                path.unlink(missing_ok=True)
                total -= sizes[path]


class ClipStore:
    """The segments of one clip in a store.

    `clip` is the fingerprint of all that decides its segments, but the speech.
    """

    def __init__(self, store: SegmentStore, clip: str, speech: Speech | None = None):
        self.store, self.clip, self.speech = store, clip, speech

    @property
    def usable(self) -> bool:
        return self.store.usable

    def name(self, index: int, before: str) -> str:
        """What a segment is called that comes after the one called `before`."""
        if not self.usable:
            return ""
        speech, last = self.speech, index + 1 == self.speech.segments
        length = speech.new_frames(index), last
        heard = heard_by(speech, index)
        made_by = FORMAT, av.__version__  # other encoders' pieces do not fit together
        return fingerprint((made_by, self.clip, before, index, length, heard))

    def segment(self, name: str) -> FinishedSegment | None:
        return self.store.segment(name)

    def latents(self, name: str) -> Tensor | None:
        return self.store.latents(name)

    def put_segment(self, name: str, segment: FinishedSegment) -> None:
        self.store.put_segment(name, segment)

    def put_latents(self, name: str, latents: Tensor) -> None:
        self.store.put_latents(name, latents)


NOTHING_KEPT = ClipStore(SegmentStore(Path(), size=0), "")
"""For a clip whose segments are not to be kept, or cannot be told from others."""


def heard_by(speech: Speech, index: int) -> tuple:
    """What of a speech decides a segment.

    That is its sound and a second around it, where the sound is known: the features of the same
    sound differ a little with what comes long before or after. Else it is the features.
    """
    if speech.sound is None:
        return (segment_windows(speech.features, index),)
    start = index * NEW_FRAMES - MOTION_FRAMES - HEARD_AROUND
    stop = (index + 1) * NEW_FRAMES + HEARD_AROUND
    rate = speech.sound.rate
    samples = slice(max(start, 0) * rate // FPS, stop * rate // FPS)
    return speech.encoder, rate, speech.sound.waveform[:, samples]
