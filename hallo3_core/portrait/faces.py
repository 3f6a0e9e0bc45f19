"""Finding faces in a portrait, with whatever is installed.

With InsightFace and the antelopev2 files a face comes with its embedding, as in the published
program; without them scikit-image's cascade finds frontal faces and there is no embedding.
Pictures are (3, height, width) in [0, 1]; boxes are (left, top, right, bottom) in pixels.
"""

import importlib
import importlib.util
from collections.abc import Callable
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
from PIL import Image, ImageDraw
from torch import Tensor

from ..checkpoints.file_kind import ONNX, read_kind
from ..errors import InputError
from ..media.picture import to_bytes
from ..onnx import PerProcess, providers
from .framing import Box

DETECTOR, RECOGNISER = "scrfd_10g_bnkps.onnx", "glintr100.onnx"
DETECTION_SIZE = (640, 640)
LARGEST_SIDE = 480
"""Of a picture that the cascade looks at; larger ones take longer and show no more faces."""
CASCADE_SIDE = 24
"""Of the smallest face that the cascade knows."""


@dataclass(frozen=True)
class Margins:
    """How far the oval's box reaches beyond a detector's, in shares of the latter's sides."""

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


@dataclass(frozen=True)
class Face:
    """A face in a picture: its box (of the oval around it), how sure the detector is, and its
    embedding (1, 512), float32, if there is a network for it."""

    box: Box
    score: float | None = None
    embedding: Tensor | None = None

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def overlap(box: Box, other: Box) -> float:
    """What two boxes share of all that they cover, 0 to 1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, other)]
    return shared / (sum(areas) - shared)


Finder = Callable[[Tensor], list[Face]]
"""Finds the faces in a picture, the largest first."""


def largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -face.area)


CASCADE_MARGINS = Margins(-0.04, -0.07, -0.04, 0.12)
"""Measured on four portraits against MediaPipe's oval."""

TILTS = (-20, -10, 0, 10, 20)
"""Degrees by which a picture is turned for the cascade, which knows upright faces."""

VOTES, SAME = 2, 0.4
"""In how many of the turned pictures a face has to be, and what its boxes there share."""


def find_frontal_faces(picture: Tensor) -> list[Face]:
    """Frontal faces, by scikit-image's cascade of local binary patterns."""
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
    boxes = [np.mean(group, axis=0) / scale for group in groups if len(group) >= VOTES]
    return largest_first([Face(CASCADE_MARGINS.widen(tuple(box.tolist()))) for box in boxes])


def _cascade_boxes(grey: np.ndarray) -> list[Box]:
    cascade = skimage.feature.Cascade(skimage.data.lbp_frontal_face_cascade_filename())
    side = min(grey.shape)
    smallest, largest = (side // 10, side // 10), (side, side)
    found = cascade.detect_multi_scale(
        grey, scale_factor=1.1, step_ratio=1, min_size=smallest, max_size=largest
    )
    return [(f["c"], f["r"], f["c"] + f["width"], f["r"] + f["height"]) for f in found]


def _turn_back(box: Box, tilt: float, size: tuple[int, int]) -> Box:
    """A box in a picture of `size` that was turned by `tilt` degrees, around the same face in it
    before."""
    left, top, right, bottom = box
    middle = np.array(size[::-1]) / 2
    angle = np.radians(tilt)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    across, down = turn @ (np.array([left + right, top + bottom]) / 2 - middle) + middle
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    return across - half_width, down - half_height, across + half_width, down + half_height


INSIGHTFACE_MARGINS = Margins(0.05, 0.05, 0.05, 0.02)
"""An estimate: InsightFace's boxes go from the brow to the chin, the oval from the hair to it."""


class InsightFace:
    """Faces and their embeddings by the networks of antelopev2, in onnxruntime sessions."""

    def __init__(self, folder: Path):
        """Raises `InputError` if a file cannot be loaded."""
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
            widened = INSIGHTFACE_MARGINS.widen(tuple(map(float, box[:4])))
            faces.append(Face(widened, float(box[4]), embedding))
        return largest_first(faces)


def _open_networks(folder: Path) -> tuple[Any, Any]:
    """InsightFace's detector and recogniser."""
    detector = _open_network(folder / DETECTOR, "detection")
    detector.prepare(0, input_size=DETECTION_SIZE, det_thresh=0.5)
    return detector, _open_network(folder / RECOGNISER, "recognition")


def _open_network(file: Path, task: str) -> Any:
    """One of InsightFace's networks, for a task as it calls them."""
    read_kind(file, "a face model", ONNX)
    model_zoo = importlib.import_module("insightface.model_zoo")
    try:
        network = model_zoo.get_model(str(file), providers=providers())
    except Exception as error:  # onnxruntime raises many kinds
        raise InputError(
            f"{file} cannot be loaded ({type(error).__name__}): download antelopev2's again."
        ) from error
    found = getattr(network, "taskname", "nothing that InsightFace knows")
    if found != task:
        raise InputError(f"{file} is for {found}, not for {task}: take antelopev2's of that name.")
    return network


def has_insightface(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (DETECTOR, RECOGNISER))


def insightface_missing(folders: list[Path]) -> str:
    """What is to be done to have InsightFace, in words; nothing if it is there."""
    missing = []
    if importlib.util.find_spec("insightface") is None:
        missing.append("`pip install insightface onnxruntime`")
    if not any(map(has_insightface, folders)):
        missing.append(f"put antelopev2's {DETECTOR} and {RECOGNISER} into {folders[0]}")
    return ", and ".join(missing)


def open_finder(folders: list[Path]) -> Finder:
    """InsightFace with the first of the folders that has its files, else the cascade."""
    if insightface_missing(folders):
        return find_frontal_faces
    return InsightFace(next(filter(has_insightface, folders)))


def no_face(mend: str, folders: list[Path]) -> str:
    """What to say where no face was found; `mend` is what can be done about it."""
    missing = insightface_missing(folders)
    more = f" InsightFace finds faces from all sides: {missing}." if missing else ""
    return f"No face was found: the whole picture counts as one. {mend}{more}"


def choose(faces: list[Face], index: int) -> Face | None:
    """The face of an index, the largest being 0; None if there are no faces at all.

    Raises `InputError` if there are fewer.
    """
    if index < 0:
        raise InputError(f"There is no face {index}: the largest is 0, the others follow.")
    if not faces:
        return None
    if index >= len(faces):
        found = (
            "only one was found, which is 0"
            if len(faces) == 1
            else f"{len(faces)} were found, from 0 to {len(faces) - 1}, the largest first"
        )
        raise InputError(f"There is no face {index}: {found}.")
    return faces[index]


def draw(picture: Tensor, faces: list[Face], chosen: int) -> Tensor:
    """The picture with the boxes, indices and scores of its faces, the chosen one in green."""
    image = Image.fromarray(to_bytes(picture))
    pen = ImageDraw.Draw(image)
    size = max(min(image.size) // 25, 10)
    for index, face in enumerate(faces):
        colour = "lime" if index == chosen else "orange"
        pen.rectangle(face.box, outline=colour, width=max(size // 8, 2))
        label = f"{index}" if face.score is None else f"{index}: {face.score:.2f}"
        pen.text(face.box[:2], label, fill=colour, font_size=size, anchor="lb")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
