"""Makes the mask of the face (the face region) from a box or a mask, and measures its box.

A region is (height, width): 1 in the box of the face, and 0 elsewhere.
"""

import torch
from torch import Tensor

from ..errors import InputError
from ..network.config import Size
from .framing import Box

FACE_BOX_GROWTH = 1.2
LEAST_GROWTH, MOST_GROWTH = 0.5, 5.0


def check_growth(growth: float) -> None:
    """Raise `InputError` if the factor by which a face box grows is out of range."""
    if not LEAST_GROWTH <= growth <= MOST_GROWTH:
        raise InputError(
            f"The growth of the face box is {growth:g}: choose {LEAST_GROWTH:g} to "
            f"{MOST_GROWTH:g}, such as {FACE_BOX_GROWTH}."
        )


def face_region(mask: Tensor, growth: float = FACE_BOX_GROWTH) -> Tensor:
    """A region (height, width): 1 in the box around the mask, 0 elsewhere.

    The box is `growth` times as large as the mask, with the same centre. A box that passes the edge
    of the picture is shifted back inside. Raises `InputError` if `growth` is out of range.
    """
    check_growth(growth)
    region = torch.zeros_like(mask)
    left, top, right, bottom = region_box(mask)
    box = []
    for first, last, length in ((top, bottom, len(mask)), (left, right, mask.shape[1])):
        size = min(max(round((last - first) * growth), 1), length)
        start = round((first + last - size) / 2)
        start = min(max(start, 0), length - size)
        box.append(slice(start, start + size))
    region[tuple(box)] = 1
    return region


def region_box(region: Tensor) -> Box:
    """The box around the ones of a mask (height, width)."""
    rows, columns = ((region > 0.5).any(dim=axis).nonzero() for axis in (1, 0))
    left, right = columns.min().item(), columns.max().item() + 1
    return left, rows.min().item(), right, rows.max().item() + 1


def box_region(box: Box, size: Size, growth: float = FACE_BOX_GROWTH) -> Tensor:
    """The face region (height, width) of a picture of `size`, from the box of the face.

    The box covers at least one pixel of the picture.
    """
    mask = torch.zeros(size)
    left, top, right, bottom = (max(round(edge), 0) for edge in box)
    top, left = min(top, size[0] - 1), min(left, size[1] - 1)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = 1
    return face_region(mask, growth)


def region_of(
    mask: Tensor | None, box: Box | None, size: Size, growth: float = FACE_BOX_GROWTH
) -> Tensor | None:
    """The face region (height, width) of a picture of `size`, from the mask or else from the box.

    None if there is neither mask nor box. Raises `InputError` if `growth` is out of range.
    """
    if mask is not None:
        return face_region(mask, growth)
    return None if box is None else box_region(box, size, growth)


def face_box(region: Tensor | None) -> Box | None:
    """The box around a face region. None if there is no region, or if it is the whole picture."""
    if region is None:
        return None
    height, width = region.shape
    box = region_box(region)
    return None if box == (0, 0, width, height) else box
