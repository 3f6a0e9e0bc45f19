"""The portrait: masked to the face, fitted to the canvas, encoded as an Identity.

Images are (3, height, width) in [0, 1]; on the canvas, (1, 3, height, width) in [-1, 1].
"""

import logging
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..autoencoder.motion import motion_latents
from ..autoencoder.vae import encode
from ..errors import InputError
from ..media.picture import check_picture
from ..network.config import MOTION_FRAMES, Size
from ..network.transformer import ReferenceNetwork
from ..noise import Noise
from .framing import FIT, FITS, Box, Framing

FACE_BOX_GROWTH = 1.2
LEAST_GROWTH, MOST_GROWTH = 0.5, 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Who is animated.

    `portrait` (1, 3, height, width) is the canvas portrait, `motion` (1, 16, 13, height / 8,
    width / 8) the motion latents of its standing still, which the first segment continues, `face`
    (1, 512) the face embedding, `features` the reference network's tokens, one (1, tokens, width)
    for each layer, and `place` the rows and columns of the canvas that the picture itself covers.
    All of it is in main memory: features of the released model in bf16 take 0.3 GB.
    """

    portrait: Tensor
    motion: Tensor
    face: Tensor
    features: list[Tensor]
    place: tuple[slice, slice]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture, which is what the video shows."""
        return self.portrait[..., *self.place].shape[-2:]


def check_growth(growth: float) -> None:
    """Raises `InputError` if a face's box cannot grow so many times."""
    if not LEAST_GROWTH <= growth <= MOST_GROWTH:
        raise InputError(
            f"The face grows {growth:g} times: choose {LEAST_GROWTH:g} to {MOST_GROWTH:g}; "
            f"published is {FACE_BOX_GROWTH}."
        )


def face_region(mask: Tensor, growth: float = FACE_BOX_GROWTH) -> Tensor:
    """The box around a mask (height, width), grown about its centre and filled with 1.

    A box that has grown past the edge is shifted back inside the picture.
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
    """The box around what is 1 in a mask (height, width)."""
    rows, columns = ((region > 0.5).any(dim=axis).nonzero() for axis in (1, 0))
    left, right = columns.min().item(), columns.max().item() + 1
    return left, rows.min().item(), right, rows.max().item() + 1


def box_region(box: Box, size: Size, growth: float = FACE_BOX_GROWTH) -> Tensor:
    """The region of a face in this box of a picture of `size`, at least a pixel of it."""
    mask = torch.zeros(size)
    left, top, right, bottom = (max(round(edge), 0) for edge in box)
    top, left = min(top, size[0] - 1), min(left, size[1] - 1)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = 1
    return face_region(mask, growth)


def face_box(region: Tensor | None) -> Box | None:
    """The box around a face region; None where it is the whole picture, so that no place counts."""
    if region is None:
        return None
    height, width = region.shape
    box = region_box(region)
    return None if box == (0, 0, width, height) else box


def framing_of(fit: str, picture: Size, canvas: Size, region: Tensor | None) -> Framing:
    """Where a picture of that size with that face region goes on the canvas, by one of `FITS`."""
    return FITS[fit](picture, canvas, face_box(region))


def framed_region(framing: Framing, region: Tensor) -> Tensor:
    """A region (height, width) of the picture as a region of the video."""
    rows, columns = framing.place
    shown = torch.zeros(framing.canvas)
    left, top, right, bottom = map(round, framing.box(region_box(region), tuple(region.shape)))
    shown[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
    return shown[rows, columns]


def encode_identity(
    vae: AutoencoderKLCogVideoX,
    reference_network: ReferenceNetwork,
    portrait: Tensor,
    reference: Tensor,
    noise: Noise,
    face: Tensor | None = None,
    place: tuple[slice, slice] = (slice(None), slice(None)),
) -> Identity:
    """Identity from the canvas portrait, the canvas reference image and the face embedding.

    Draws from the streams `reference` and `motion` 0.
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
    reference_network: ReferenceNetwork,
    image: Tensor,
    region: Tensor | None,
    noise: Noise,
    face: Tensor | None = None,
    fit: str = FIT,
) -> Identity:
    """Identity from a picture (3, height, width), its face region and the face embedding.

    `region` (height, width) is 1 at the face and 0 elsewhere; without it the whole picture is.
    Without an embedding it is zeros, as in the published program when it finds no face. `fit` is
    one of `FITS`, and a warning says if it cuts the face away. Raises `InputError` if the picture
    is too small, too long or not finite.
    """
    image = check_picture(image)
    canvas, picture = reference_network.config.canvas, tuple(image.shape[1:])
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
