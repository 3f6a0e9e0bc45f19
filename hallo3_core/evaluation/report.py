"""The report of the measures of a whole video."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np
import torch

from ..media.picture import read_image, to_bytes
from ..media.video import read_frames
from ..network.config import FPS, NEW_FRAMES
from ..portrait.finders import has_insightface, open_finder
from ..portrait.mesh import find_landmarker, open_mesh
from ..sound.sound_file import read_sound
from .reader import MeshReader, drawn_reader
from .sync import best_lag, correlation, envelope
from .syncnet import Sync, face_squares, load_syncnet, sync
from .tracks import Tracks, track

DRIFT_FRAMES = 10 * FPS


@dataclass(frozen=True)
class Report:
    """The measures of a video.

    - `sync`: the correlation of the mouth's opening with the envelope of the speech.
    - `lag`: the number of frames by which the mouth is late where the correlation is largest.
    - `sync_at_lag`: the correlation at this lag.
    - `identity`: the mean distance of the face from the portrait.
    - `identity_drift`, `colour_drift`: the change from the first ten seconds to the last ten
      seconds, of the distance and of the colour (in Delta E).
    - `sharpness`: the mean CPBD, 0 (blurred) to 1.
    - `flicker`: the mean second difference of the luminance, in 0 to 255.
    - `seams`: the median jump at segment borders divided by the median jump within segments.
    - `likeness`: the median cosine similarity of the face embeddings. NaN without embeddings.
    - `syncnet`: the result of SyncNet, if it was run.
    """

    frames: int
    sync: float
    lag: int
    sync_at_lag: float
    identity: float
    identity_drift: float
    colour_drift: float
    sharpness: float
    flicker: float
    seams: float
    likeness: float
    syncnet: Sync | None

    @classmethod
    def of(cls, tracks: Tracks, speech: np.ndarray, syncnet: Sync | None = None) -> "Report":
        """Summarise the tracks of a video. `speech` (frames,) is the envelope of the speech."""
        sync_at_lag, lag = best_lag(tracks.opening, speech)
        first, last = slice(None, DRIFT_FRAMES), slice(-DRIFT_FRAMES, None)
        colours = [tracks.colour[part].mean(0) for part in (first, last)]
        return cls(
            len(tracks),
            correlation(tracks.opening, speech),
            lag,
            sync_at_lag,
            float(tracks.distance.mean()),
            float(tracks.distance[last].mean() - tracks.distance[first].mean()),
            float(np.linalg.norm(colours[1] - colours[0])),
            mean(tracks.sharpness),
            mean(tracks.flicker),
            seams(tracks.jump),
            median(tracks.likeness),
            syncnet,
        )

    def lines(self) -> Iterator[str]:
        yield f"{self.frames} frames ({self.frames / FPS:.2f} s)"
        yield (
            f"lip sync: r = {self.sync:.3f} with the loudness of the speech, "
            f"at best {self.sync_at_lag:.3f}, {self.lag:+d} frames late"
        )
        if self.syncnet:
            yield (
                f"SyncNet: LSE-D {self.syncnet.distance:.2f}, LSE-C {self.syncnet.confidence:.2f}, "
                f"sound {self.syncnet.shift:+d} frames late"
            )
        embedded = "" if isnan(self.likeness) else f", ArcFace {self.likeness:.3f}"
        yield f"identity: {self.identity:.4f} from the portrait{embedded}"
        yield f"drift: identity {self.identity_drift:+.4f}, colour {self.colour_drift:.2f} Delta E"
        yield f"sharpness: {self.sharpness:.3f} CPBD"
        yield f"flicker: {self.flicker:.2f} of 255"
        yield f"seams: {self.seams:.2f} times the jumps within segments"


def seams(jump: np.ndarray) -> float:
    """The median jump at segment borders divided by the median of the other jumps.

    `jump` is (frames,). NaN if the video has one segment.
    """
    borders = jump[NEW_FRAMES::NEW_FRAMES]
    inside = np.delete(jump, np.s_[::NEW_FRAMES])
    return float(np.median(borders) / np.median(inside)) if len(borders) else float("nan")


def mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN, or NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def median(values: np.ndarray) -> float:
    """The median of the values that are not NaN, or NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def evaluate(
    video: Path,
    portrait: Path | None = None,
    face_models: Path | None = None,
    syncnet: Path | None = None,
    device: torch.device | str = "cpu",
) -> Report:
    """Measure a video of a face with its speech.

    Without a `portrait`, the first frame of the video is the portrait. `face_models` is a folder
    with MediaPipe's landmarker, antelopev2 or both, for photographs. Without the landmarker, the
    faces must be drawings. Without antelopev2, `likeness` is NaN. `syncnet` is the weights file of
    SyncNet's authors. Our networks and SyncNet run on `device`, MediaPipe on the CPU, and
    antelopev2 where onnxruntime runs it. Raises `InputError` if a file cannot be used, or if the
    video has no frames or no face.
    """
    network = load_syncnet(syncnet, device) if syncnet else None
    folders = [face_models] if face_models else []
    landmarker = find_landmarker(folders)
    finder = open_finder(folders) if any(map(has_insightface, folders)) else None
    picture = None if portrait is None else to_bytes(read_image(portrait))
    sound = read_sound(video)
    with open_mesh(landmarker) if landmarker else nullcontext() as mesh:
        reader = MeshReader(mesh) if mesh else drawn_reader(device)
        tracks = track(reader, read_frames(video), picture, finder, device)
    heard = None
    if network:
        squares = face_squares(read_frames(video), tracks.face)
        heard = sync(network, squares, sound.prepared().numpy())
    return Report.of(tracks, envelope(sound.mono().numpy(), sound.rate, len(tracks)), heard)
