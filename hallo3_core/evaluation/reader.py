"""Finds the face and the mouth in the frames of a video.

In drawings, a small network finds them. It knows only drawings (docs/training.md). In photographs,
MediaPipe's face mesh finds them, if it is installed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError
from ..portrait.mesh import OVAL, Mesh, box_around

PICTURE_SIDE = 128
WIDTHS = (16, 32, 48, 64, 96)
"""Channels of the network, which halves the picture at each."""
INNER_LIPS = 13, 14
LIPS = [61, 291, 0, 17, 37, 267, 84, 314, 146, 375]
"""Landmarks of the mesh. `INNER_LIPS`: the inner middle of both lips. `LIPS`: corners and rims."""
FILE = Path(__file__).parents[1] / "builtin" / "weights" / "face_reader.safetensors"


@dataclass(frozen=True)
class Faces:
    """The faces in frames, one per frame.

    `opening` (frames,) is the distance between the lips as a share of the height of the face.
    `face` and `mouth` (frames, 4) are boxes: left, top, right and bottom as shares of the picture.
    """

    opening: Tensor
    face: Tensor
    mouth: Tensor


Reader = Callable[[Tensor], Faces]
"""A function from frames (frames, height, width, 3) in [0, 1] to `Faces` on the same device."""


class FaceReader(nn.Module):
    """The network that finds the face and the mouth in drawings."""

    def __init__(self):
        super().__init__()
        layers, last = [], 3
        for width in WIDTHS:
            layers += [
                nn.Conv2d(last, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.SiLU(),
            ]
            last = width
        self.layers = nn.Sequential(*layers)
        side = PICTURE_SIDE >> len(WIDTHS)
        self.head = nn.Sequential(
            nn.Conv2d(last, 32, 1), nn.SiLU(), nn.Flatten(), nn.Linear(32 * side**2, 9)
        )

    def forward(self, pictures: Tensor) -> Faces:
        """Find the faces in pictures (frames, 3, 128, 128) in [-1, 1]."""
        opening, face, mouth = self.head(self.layers(pictures)).split((1, 4, 4), dim=1)
        return Faces(opening[:, 0], face, mouth)


def load_reader() -> FaceReader:
    reader = FaceReader()
    reader.load_state_dict(load_file(FILE))
    return reader.eval().requires_grad_(False)


def read_faces(reader: FaceReader, frames: Tensor) -> Faces:
    """Find the faces in frames (frames, height, width, 3) in [0, 1] with the network `reader`."""
    height, width = frames.shape[1:3]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    edges = (left, side - width - left, top, side - height - top)
    pictures = F.pad(frames.movedim(-1, 1), edges)
    pictures = F.interpolate(
        pictures, (PICTURE_SIDE, PICTURE_SIDE), mode="bilinear", antialias=True
    )
    found = reader(pictures * 2 - 1)
    corner = torch.tensor([left, top, left, top]).to(frames)
    size = torch.tensor([width, height, width, height]).to(frames)
    face, mouth = ((box * side - corner) / size for box in (found.face, found.mouth))
    return Faces(found.opening, face, mouth)


def drawn_reader(device: torch.device | str = "cpu") -> Reader:
    """The reader of drawings, for frames on `device`."""
    return partial(read_faces, load_reader().to(device))


class MeshReader:
    """The reader of photographs, with MediaPipe's mesh.

    If the mesh finds no face in a frame, the last face is used again. Raises `InputError` if the
    first frame has no face.
    """

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.seen: np.ndarray | None = None

    def __call__(self, frames: Tensor) -> Faces:
        rows = [self.read(frame.movedim(-1, 0)) for frame in frames.cpu()]
        columns = map(torch.stack, zip(*rows, strict=True))
        return Faces(*(column.to(frames.device) for column in columns))

    def read(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Opening, face box and mouth box of one picture (3, height, width) in [0, 1]."""
        points = self.mesh(picture)
        self.seen = self.seen if points is None else points
        if self.seen is None:
            raise InputError("No face was found in the first frame of the video: use another.")
        oval, lips = box_around(self.seen[OVAL]), box_around(self.seen[LIPS])
        upper, lower = self.seen[list(INNER_LIPS)]
        opening = np.linalg.norm(lower - upper) / (oval[3] - oval[1])
        size = np.array([*picture.shape[:0:-1]] * 2)
        return (
            torch.tensor(opening, dtype=torch.float32),
            torch.tensor(oval / size, dtype=torch.float32),
            torch.tensor(lips / size, dtype=torch.float32),
        )
