"""Finds the faces in a portrait.

If InsightFace and the antelopev2 files are installed, they find the faces and compute the face
embeddings, as in the published program. Otherwise scikit-image's cascade finds frontal faces, and
there is no embedding. Pictures are (3, height, width) in [0, 1]. Boxes are (left, top, right,
bottom) in pixels.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.color
import skimage.data
import skimage.feature
import skimage.transform
import torch
from torch import Tensor

from ..checkpoints.file_kind import ONNX, read_kind
from ..errors import InputError
from ..media.picture import to_bytes
from ..onnx import PerProcess, providers
from .faces import SAME, Face, Finder, largest_first, overlap
from .framing import Box

DETECTOR, RECOGNISER = "scrfd_10g_bnkps.onnx", "glintr100.onnx"
DETECTION_SIZE = (640, 640)
LARGEST_SIDE = 480
"""Larger pictures are reduced to this side, in pixels, before the cascade sees them.

More pixels take longer and do not show more faces.
"""
CASCADE_SIDE = 24
"""The side of the smallest face that the cascade can find, in pixels."""


@dataclass(frozen=True)
class Margins:
    """The distances from a detector's box to the box of the face oval, as shares of its sides.

    A positive margin makes the box larger.
    """

    left: float
    top: float
    right: float
    bottom: float

    def widen(self, box: Box) -> Box:
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        return (
            left - self.left * width,
            top - self.top * height,
            right + self.right * width,
            bottom + self.bottom * height,
        )


CASCADE_MARGINS = Margins(-0.04, -0.07, -0.04, 0.12)
"""Measured on four portraits, relative to MediaPipe's oval."""

TILTS = (-20, -10, 0, 10, 20)
"""The cascade finds upright faces only. So it sees the picture rotated by each of these degrees."""

VOTES = 2
"""A face must have boxes from so many rotations."""


def find_frontal_faces(picture: Tensor) -> list[Face]:
    """Find frontal faces with scikit-image's cascade of local binary patterns."""
    height, width = picture.shape[1:]
    scale = min(LARGEST_SIDE / max(height, width), 1)
    size = round(height * scale), round(width * scale)
    if min(size) < CASCADE_SIDE:
        return []
    pixels = picture.permute(1, 2, 0).float().cpu().numpy()
    grey = skimage.color.rgb2gray(skimage.transform.resize(pixels, size, anti_aliasing=scale < 1))
    groups: list[list[Box]] = []
    for tilt in TILTS:
        for box in _cascade_boxes(skimage.transform.rotate(grey, tilt)):
            upright = _turn_back(box, tilt, size)
            group = next((g for g in groups if overlap(g[0], upright) > SAME), [])
            if not group:
                groups.append(group)
            group.append(upright)
    boxes = [_mean_box(group, scale) for group in groups if len(group) >= VOTES]
    return largest_first([Face(CASCADE_MARGINS.widen(box)) for box in boxes])


def _mean_box(boxes: list[Box], scale: float) -> Box:
    """The mean of boxes in a picture that was resized by `scale`, in the picture itself."""
    left, top, right, bottom = (np.mean(boxes, axis=0) / scale).tolist()
    return left, top, right, bottom


def _cascade_boxes(grey: np.ndarray) -> list[Box]:
    cascade = skimage.feature.Cascade(skimage.data.lbp_frontal_face_cascade_filename())
    side = min(grey.shape)
    smallest, largest = (side // 10, side // 10), (side, side)
    found = cascade.detect_multi_scale(
        grey, scale_factor=1.1, step_ratio=1, min_size=smallest, max_size=largest
    )
    return [(f["c"], f["r"], f["c"] + f["width"], f["r"] + f["height"]) for f in found]


def _turn_back(box: Box, tilt: float, size: tuple[int, int]) -> Box:
    """Convert a box in the rotated picture to a box in the upright picture.

    `size` is (height, width). The picture was rotated by `tilt` degrees. The box keeps its size.
    """
    left, top, right, bottom = box
    middle = np.array(size[::-1]) / 2
    angle = np.radians(tilt)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    across, down = turn @ (np.array([left + right, top + bottom]) / 2 - middle) + middle
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    return across - half_width, down - half_height, across + half_width, down + half_height


INSIGHTFACE_MARGINS = Margins(0.05, 0.05, 0.05, 0.02)
"""An estimate. InsightFace's box reaches from the brow to the chin, the oval from hair to chin."""


class InsightFace:
    """Finds faces and computes their embeddings with antelopev2, in onnxruntime."""

    def __init__(self, folder: Path):
        """`folder` has the antelopev2 files. Raises `InputError` if one cannot be loaded."""
        self.networks = PerProcess(partial(_open_networks, folder))

    def __call__(self, picture: Tensor) -> list[Face]:
        detector, recogniser = self.networks()
        pixels = np.ascontiguousarray(to_bytes(picture)[..., ::-1])
        boxes, landmarks = detector.detect(pixels, input_size=DETECTION_SIZE)
        common = importlib.import_module("insightface.app.common")
        faces = []
        for box, points in zip(boxes, landmarks, strict=True):
            found = common.Face(bbox=box[:4], kps=points, det_score=box[4])
            embedding = torch.from_numpy(recogniser.get(pixels, found)).float()[None]
            left, top, right, bottom, score = map(float, box[:5])
            widened = INSIGHTFACE_MARGINS.widen((left, top, right, bottom))
            faces.append(Face(widened, score, embedding))
        return largest_first(faces)


def _open_networks(folder: Path) -> tuple[Any, Any]:
    """InsightFace's detector and recogniser."""
    detector = _open_network(folder / DETECTOR, "detection")
    detector.prepare(0, input_size=DETECTION_SIZE, det_thresh=0.5)
    return detector, _open_network(folder / RECOGNISER, "recognition")


def _open_network(file: Path, task: str) -> Any:
    """Open one InsightFace network. `task` is InsightFace's name of what the network does."""
    read_kind(file, "a face model", ONNX)
    model_zoo = importlib.import_module("insightface.model_zoo")
    try:
        network = model_zoo.get_model(str(file), providers=providers())
    except Exception as error:  # onnxruntime raises many kinds
        raise InputError(
            f"{file} cannot be loaded ({type(error).__name__}): download antelopev2 again."
        ) from error
    found = getattr(network, "taskname", "nothing that InsightFace knows")
    if found != task:
        raise InputError(
            f"{file} is for {found}, not for {task}: use the antelopev2 file of that name."
        )
    return network


def has_insightface(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (DETECTOR, RECOGNISER))


def insightface_missing(folders: list[Path]) -> str:
    """The steps that install InsightFace, in words. Empty if it is installed."""
    missing = []
    if importlib.util.find_spec("insightface") is None:
        missing.append("`pip install insightface onnxruntime`")
    if not any(map(has_insightface, folders)):
        missing.append(f"put antelopev2's {DETECTOR} and {RECOGNISER} into {folders[0]}")
    return ", and ".join(missing)


def open_finder(folders: list[Path]) -> Finder:
    """InsightFace with the first folder that has its files, or else the cascade."""
    if insightface_missing(folders):
        return find_frontal_faces
    return InsightFace(next(filter(has_insightface, folders)))


def no_face(mend: str, folders: list[Path]) -> str:
    """The warning when no face was found. `mend` tells the user what to do."""
    missing = insightface_missing(folders)
    more = f" InsightFace finds faces from all sides: {missing}." if missing else ""
    return f"No face was found: the whole picture counts as one. {mend}{more}"
