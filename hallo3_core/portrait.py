"""The portrait: read, masked to the face, fitted to the canvas, encoded as an Identity.

Images are (3, height, width) in [0, 1]; on the canvas, (1, 3, height, width) in [-1, 1].
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .config import MOTION_FRAMES
from .errors import InputError
from .framing import FITS, Box, Size
from .noise import Noise
from .segments import motion_latents
from .transformer import ReferenceNetwork
from .vae import encode

SMALLEST_SIDE = 16
FACE_BOX_GROWTH = 1.2
WHITES = (1, 255, 65535, float("inf"))
"""What may stand for white in a picture of floating-point numbers."""


@dataclass(frozen=True)
class Identity:
    """Who is animated.

    `portrait` (1, 3, height, width) is the canvas portrait, `motion` (1, 16, 13, height / 8,
    width / 8) the motion latents of its standing still, which the first segment continues, `face`
    (1, 512) the face embedding, `features` the reference network's tokens, one (1, tokens, width)
    for each layer, and `place` the rows and columns of the canvas that the picture itself covers.
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


def read_image(path: Path) -> Tensor:
    """Any picture that Pillow reads, upright, on black where it is transparent."""
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = ImageOps.exif_transpose(Image.open(path))
            image.load()
    except FileNotFoundError:
        raise InputError(f"There is no picture {path}: check the path.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS / 1e6
        raise InputError(f"{path} has more than {limit:.0f} megapixels: make it smaller.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} is no picture that can be read ({error}): save it as PNG or JPEG."
        ) from error
    if min(image.size) < SMALLEST_SIDE:
        raise InputError(
            f"{path} has {image.width} x {image.height} pixels: "
            f"use a picture of at least {SMALLEST_SIDE} a side."
        )
    return torch.from_numpy(_to_rgb(image)).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.float32)
        white = 65535 if image.mode != "F" else next(w for w in WHITES if grey.max() <= w)
        return np.repeat(grey[..., None] / white, 3, axis=2).clip(0, 1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def read_mask(path: Path, size: tuple[int, int]) -> Tensor:
    """A black and white picture of `size` (height, width) as a mask (height, width)."""
    mask = read_image(path).mean(0)
    if mask.shape != size:
        found, wanted = (f"{width} x {height}" for height, width in (mask.shape, size))
        raise InputError(
            f"The face mask {path} has {found} pixels and the portrait {wanted}: "
            "draw it on the portrait itself."
        )
    if not (mask > 0.5).any():
        raise InputError(f"The face mask {path} has no white in it: paint the face white.")
    return mask


def face_region(mask: Tensor, growth: float = FACE_BOX_GROWTH) -> Tensor:
    """The box around a mask (height, width), grown about its centre and filled with 1.

    A box that has grown past the edge is shifted back inside the picture.
    """
    region = torch.zeros_like(mask)
    left, top, right, bottom = region_box(mask)
    box = []
    for first, last, length in ((top, bottom, len(mask)), (left, right, mask.shape[1])):
        size = min(round((last - first) * growth), length)
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
    """The region of a face in this box of a picture of `size`."""
    mask = torch.zeros(size)
    left, top, right, bottom = (max(round(edge), 0) for edge in box)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = 1
    return face_region(mask, growth)


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
    return Identity(portrait, motion, face, features, place)


@torch.no_grad()
def encode_portrait(
    vae: AutoencoderKLCogVideoX,
    reference_network: ReferenceNetwork,
    image: Tensor,
    region: Tensor | None,
    noise: Noise,
    face: Tensor | None = None,
    fit: str = "published",
) -> Identity:
    """Identity from a picture (3, height, width), its face region and the face embedding.

    `region` (height, width) is 1 at the face and 0 elsewhere; without it the whole picture is.
    Without an embedding it is zeros, as in the published program when it finds no face. `fit` is
    one of `FITS`.
    """
    canvas, picture = reference_network.config.canvas, tuple(image.shape[1:])
    framing = FITS[fit](picture, canvas, None if region is None else region_box(region))
    reference = image if region is None else image * region
    return encode_identity(
        vae,
        reference_network,
        framing.apply(image),
        framing.apply(reference),
        noise,
        face,
        framing.place,
    )
