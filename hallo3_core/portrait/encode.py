"""Encodes the portrait: masks it to the face, fits it to the canvas, makes an Identity of it.

Pictures are (3, height, width) in [0, 1]. Canvas pictures are (1, 3, height, width) in [-1, 1].
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..autoencoder.motion import motion_latents
from ..autoencoder.vae import encode
from ..errors import InputError
from ..media.picture import check_picture, size_of
from ..network.config import MOTION_FRAMES, Hallo3Config, Size
from ..noise import Noise
from .framing import FIT, FITS, Box, Framing

FACE_BOX_GROWTH = 1.2
LEAST_GROWTH, MOST_GROWTH = 0.5, 5.0

logger = logging.getLogger(__name__)


class ReferenceCall(Protocol):
    """A `ReferenceNetwork`, or what calls one for a host that moves networks itself."""

    config: Hallo3Config

    @property
    def placement(self) -> Mapping[str, Any]:
        """Device and dtype of the latents that it takes."""

    def __call__(self, latents: Tensor, /) -> tuple[list[Tensor], Tensor]:
        """Reference tokens of every layer, and the network's own prediction."""


@dataclass(frozen=True)
class Identity:
    """The person to animate.

    - `portrait` (1, 3, height, width): the picture on the canvas, in [-1, 1].
    - `motion` (1, 16, 13, height / 8, width / 8): latents of the portrait standing still. The first
      segment continues them.
    - `face` (1, 512): the face embedding.
    - `features`: the tokens of the reference network, (1, tokens, width) for each layer.
    - `place`: the rows and columns of the canvas that the picture covers.

    All tensors are in main memory. The features of the released model take 0.3 GB in bf16.
    """

    portrait: Tensor
    motion: Tensor
    face: Tensor
    features: list[Tensor]
    place: tuple[slice, slice]

    @property
    def size(self) -> Size:
        """Height and width of the picture on the canvas. The video has this size."""
        height, width = self.portrait[..., *self.place].shape[-2:]
        return height, width


def check_growth(growth: float) -> None:
    """Raises `InputError` if the factor by which a face box grows is out of range."""
    if not LEAST_GROWTH <= growth <= MOST_GROWTH:
        raise InputError(
            f"The face grows {growth:g} times: choose {LEAST_GROWTH:g} to {MOST_GROWTH:g}; "
            f"published is {FACE_BOX_GROWTH}."
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


def framing_of(fit: str, picture: Size, canvas: Size, region: Tensor | None) -> Framing:
    """The place of a picture on the canvas. `fit` is one of `FITS`, `region` the face region."""
    return FITS[fit](picture, canvas, face_box(region))


def framed_region(framing: Framing, region: Tensor) -> Tensor:
    """Convert a region of the picture (height, width) to a region of the video."""
    rows, columns = framing.place
    shown = torch.zeros(framing.canvas)
    left, top, right, bottom = map(round, framing.box(region_box(region), size_of(region)))
    shown[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
    return shown[rows, columns]


def encode_identity(
    vae: AutoencoderKLCogVideoX,
    reference_network: ReferenceCall,
    portrait: Tensor,
    reference: Tensor,
    noise: Noise,
    face: Tensor | None = None,
    place: tuple[slice, slice] = (slice(None), slice(None)),
) -> Identity:
    """Make an Identity from the canvas portrait, the masked canvas portrait and the face embedding.

    `portrait` and `reference` are (1, 3, height, width) in [-1, 1], `face` is (1, 512). Without
    `face`, the embedding is zeros. Noise is drawn from the streams `reference` and `motion` 0.
    """
    latents = encode(vae, reference[:, :, None], noise.stream("reference"))
    still = portrait[:, :, None].expand(-1, -1, MOTION_FRAMES, -1, -1)
    motion = motion_latents(vae, portrait, still, noise.stream("motion"))
    features, _ = reference_network(latents.to(**reference_network.placement))
    if face is None:
        face = torch.zeros(1, reference_network.config.face_channels)
    return Identity(portrait.cpu(), motion, face.cpu(), [f.cpu() for f in features], place)


@torch.no_grad()
def encode_portrait(
    vae: AutoencoderKLCogVideoX,
    reference_network: ReferenceCall,
    image: Tensor,
    region: Tensor | None,
    noise: Noise,
    face: Tensor | None = None,
    fit: str = FIT,
) -> Identity:
    """Make an Identity from a picture (3, height, width), its face region and its face embedding.

    `region` (height, width) is 1 at the face and 0 elsewhere. Without `region`, the whole picture
    is used. Without `face` (1, 512), the embedding is zeros, as in the published program when it
    finds no face. `fit` is one of `FITS`; if it cuts the face away, a warning is logged. Raises
    `InputError` if the picture is too small, too long or not finite.
    """
    image = check_picture(image)
    canvas, picture = reference_network.config.canvas, size_of(image)
    framing, box = framing_of(fit, picture, canvas, region), face_box(region)
    if box and not framing.keeps(box, picture):
        logger.warning(
            "The fit %s cuts %.0f %% of the face away: choose auto, or pad.",
            fit,
            100 - 100 * framing.share(box, picture),
        )
    reference = image if region is None else image * region.to(image)
    return encode_identity(
        vae,
        reference_network,
        framing.apply(image),
        framing.apply(reference),
        noise,
        face,
        framing.place,
    )
