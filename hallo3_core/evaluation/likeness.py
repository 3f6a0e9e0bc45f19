"""Measures how much the face in a frame differs from the portrait's face, outside the mouth."""

import torch
import torch.nn.functional as F
from torch import Tensor

FACE_SIDE = 64
"""Both faces are scaled to squares of this side, in pixels."""
MOUTH_GROWTH = 1.5


def cut_face(frames: Tensor, boxes: Tensor, side: int = FACE_SIDE) -> Tensor:
    """Cut the faces out of frames (frames, height, width, 3), and scale them to squares.

    `boxes` (frames, 4) are left, top, right and bottom as shares of the frame. Returns
    (frames, 3, side, side).
    """
    left, top, right, bottom = (edge.view(-1, 1, 1) for edge in boxes.unbind(1))
    across = (torch.arange(side, device=frames.device) + 0.5) / side
    x = left + (right - left) * across.view(1, 1, -1)
    y = top + (bottom - top) * across.view(1, -1, 1)
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1) * 2 - 1
    return F.grid_sample(frames.movedim(-1, 1), grid, align_corners=False)


def outside_mouth(face: Tensor, mouth: Tensor) -> Tensor:
    """A mask (frames, FACE_SIDE, FACE_SIDE) of the face squares: 0 in the mouth, 1 elsewhere.

    `face` and `mouth` (frames, 4) are boxes. The mouth box grows by `MOUTH_GROWTH`.
    """
    size = face[:, 2:] - face[:, :2]
    corners = (mouth.unflatten(1, (2, 2)) - face[:, None, :2]) / size[:, None]
    middle, half = corners.mean(1), MOUTH_GROWTH * (corners[:, 1] - corners[:, 0]) / 2
    across = (torch.arange(FACE_SIDE, device=face.device) + 0.5) / FACE_SIDE
    beside = (across - middle[:, :1]).abs() > half[:, :1]
    above = (across - middle[:, 1:]).abs() > half[:, 1:]
    return (beside[:, None, :] | above[:, :, None]).float()


def distance(face: Tensor, portrait: Tensor, kept: Tensor) -> Tensor:
    """The mean absolute colour difference of face squares and the portrait's square, (frames,).

    `face` and `portrait` are (frames, 3, FACE_SIDE, FACE_SIDE). Only pixels where `kept` is 1
    count.
    """
    difference = (face - portrait).abs().mean(1) * kept
    return difference.sum((1, 2)) / kept.sum((1, 2))
