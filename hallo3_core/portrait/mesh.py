"""MediaPipe's face mesh. It needs the package mediapipe and the Face Landmarker file."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from ..checkpoints.file_kind import ZIP, read_kind
from ..errors import InputError
from ..media.picture import to_bytes
from .framing import Box

LANDMARKER = "face_landmarker_v2_with_blendshapes.task"
OVAL = [
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
]
"""The landmarks of MediaPipe's mesh that go around the face."""

Mesh = Callable[[Tensor], np.ndarray | None]
"""A function from a picture (3, height, width) in [0, 1] to the 478 landmarks of a face.

The landmarks are (478, 2), x and y in pixels. The result is None if there is no face.
"""


def find_landmarker(folders: list[Path]) -> Path | None:
    """The first Face Landmarker file in the folders. None without one or without MediaPipe."""
    if importlib.util.find_spec("mediapipe") is None:
        return None
    return next(filter(Path.is_file, (folder / LANDMARKER for folder in folders)), None)


@contextmanager
def open_mesh(file: Path) -> Iterator[Mesh]:
    """Open the Face Landmarker task in `file`. Raises `InputError` if the file is another one."""
    read_kind(file, "a Face Landmarker task", ZIP)
    mediapipe = importlib.import_module("mediapipe")
    options = mediapipe.tasks.vision.FaceLandmarkerOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(file))
    )
    try:
        landmarker = mediapipe.tasks.vision.FaceLandmarker.create_from_options(options)
    except Exception as error:  # MediaPipe raises what its C++ does
        raise InputError(
            f"{file} is not a Face Landmarker task ({type(error).__name__}): download {LANDMARKER} "
            "again."
        ) from error
    with landmarker as task:

        def find(picture: Tensor) -> np.ndarray | None:
            srgb = mediapipe.ImageFormat.SRGB
            image = mediapipe.Image(image_format=srgb, data=to_bytes(picture))
            faces = task.detect(image).face_landmarks
            if not faces:
                return None
            shares = np.array([(mark.x, mark.y) for mark in faces[0]])
            return shares * (picture.shape[2], picture.shape[1])

        yield find


def box_around(points: np.ndarray) -> Box:
    """The box around points (points, 2)."""
    return *points.min(0), *points.max(0)


def oval_box(picture: Tensor, landmarker: Path) -> Box | None:
    """The box around the oval of the face in a picture. None if there is no face."""
    with open_mesh(landmarker) as mesh:
        points = mesh(picture)
    return None if points is None else box_around(points[OVAL])
