"""Finds face and mouth in frames of drawn faces, by a small network trained on drawings.

It knows only drawn faces (see docs/training.md); of photographs it makes nothing that means much.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

SIDE = 128
FILE = Path(__file__).parents[1] / "weights" / "face_reader.safetensors"


@dataclass(frozen=True)
class Faces:
    """`opening` (frames,) is the height between the lips as a share of the face's; `face` and
    `mouth` (frames, 4) are boxes, left, top, right and bottom, as shares of the picture."""

    opening: Tensor
    face: Tensor
    mouth: Tensor


class FaceReader(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64, 96)):
        super().__init__()
        layers, last = [], 3
        for width in widths:
            layers += [
                nn.Conv2d(last, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.SiLU(),
            ]
            last = width
        self.layers = nn.Sequential(*layers)
        side = SIDE >> len(widths)
        self.head = nn.Sequential(
            nn.Conv2d(last, 32, 1), nn.SiLU(), nn.Flatten(), nn.Linear(32 * side**2, 9)
        )

    def forward(self, pictures: Tensor) -> Faces:
        """Of (frames, 3, 128, 128) in [-1, 1]."""
        opening, face, mouth = self.head(self.layers(pictures)).split((1, 4, 4), dim=1)
        return Faces(opening[:, 0], face, mouth)


def load_reader() -> FaceReader:
    reader = FaceReader()
    reader.load_state_dict(load_file(FILE))
    return reader.eval().requires_grad_(False)


def read_faces(reader: FaceReader, frames: Tensor) -> Faces:
    """Of (frames, height, width, 3) in [0, 1]."""
    height, width = frames.shape[1:3]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    edges = (left, side - width - left, top, side - height - top)
    pictures = F.pad(frames.movedim(-1, 1), edges)
    pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True)
    found = reader(pictures * 2 - 1)
    corner = torch.tensor([left, top, left, top])
    size = torch.tensor([width, height, width, height])
    face, mouth = ((box * side - corner) / size for box in (found.face, found.mouth))
    return Faces(found.opening, face, mouth)
