"""How far the face in a frame is from the portrait's, the mouth left out."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 64
"""Of the square that both faces are brought to, in pixels."""
MOUTH_GROWTH = 1.5


def cut_face(frames: Tensor, boxes: Tensor, side: int = SIDE) -> Tensor:
    """(frames, height, width, 3) and boxes as shares of them to (frames, 3, side, side)."""
    left, top, right, bottom = (edge.view(-1, 1, 1) for edge in boxes.unbind(1))
    across = (torch.arange(side, device=frames.device) + 0.5) / side
    x = left + (right - left) * across.view(1, 1, -1)
    y = top + (bottom - top) * across.view(1, -1, 1)
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1) * 2 - 1
    return F.grid_sample(frames.movedim(-1, 1), grid, align_corners=False)


def outside_mouth(face: Tensor, mouth: Tensor) -> Tensor:
    """(frames, SIDE, SIDE): 1 where a face square is not its mouth, from boxes (frames, 4)."""
    size = face[:, 2:] - face[:, :2]
    corners = (mouth.unflatten(1, (2, 2)) - face[:, None, :2]) / size[:, None]
    middle, half = corners.mean(1), MOUTH_GROWTH * (corners[:, 1] - corners[:, 0]) / 2
    across = (torch.arange(SIDE, device=face.device) + 0.5) / SIDE
    beside = (across - middle[:, :1]).abs() > half[:, :1]
    above = (across - middle[:, 1:]).abs() > half[:, 1:]
    return (beside[:, None, :] | above[:, :, None]).float()


def distance(face: Tensor, portrait: Tensor, kept: Tensor) -> Tensor:
    """(frames,): mean absolute difference of colours, of face squares from the portrait's."""
    difference = (face - portrait).abs().mean(1) * kept
    return difference.sum((1, 2)) / kept.sum((1, 2))
