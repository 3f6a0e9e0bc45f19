"""Encodes the portrait to an Identity: applies the face mask and fits the picture to the canvas.

Pictures are (3, height, width) in [0, 1]. Canvas pictures are (1, 3, height, width) in [-1, 1].
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from ..autoencoder.motion import motion_latents
from ..autoencoder.vae import encode
from ..media.picture import check_picture, size_of
from ..network.config import MOTION_FRAMES, Hallo3Config, Size
from ..noise import Noise
from .face_mask import face_box, region_box
from .framing import FIT, FITS, Framing, filling

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
    - `framing`: where the picture is on the canvas.

    All tensors are in main memory. The features of the released model take 0.3 GB in bf16.
    """

    portrait: Tensor
    motion: Tensor
    face: Tensor
    features: list[Tensor]
    framing: Framing

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of the canvas that the picture covers."""
        return self.framing.place

    @property
    def size(self) -> Size:
        """Height and width of the picture on the canvas. The video has this size."""
        height, width = self.portrait[..., *self.place].shape[-2:]
        return height, width


def on_canvas(identity: Identity, frames: Tensor) -> Tensor:
    """Put frames (frames, height, width, channels) of the video on the canvas, black around it."""
    (height, width), (rows, columns) = size_of(identity.portrait[0]), identity.place
    edges = (columns.start, width - columns.stop, rows.start, height - rows.stop)
    return F.pad(frames, (0, 0, *edges))


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
    framing: Framing | None = None,
) -> Identity:
    """Make an Identity from the canvas portrait, the masked canvas portrait and the face embedding.

    `portrait` and `reference` are (1, 3, height, width) in [-1, 1], `face` is (1, 512). Without
    `face`, the embedding is zeros. Without `framing`, the picture has the size of the canvas. Noise
    is drawn from the streams `reference` and `motion` 0.
    """
    latents = encode(vae, reference[:, :, None], noise.stream("reference"))
    still = portrait[:, :, None].expand(-1, -1, MOTION_FRAMES, -1, -1)
    motion = motion_latents(vae, portrait, still, noise.stream("motion"))
    features, _ = reference_network(latents.to(**reference_network.placement))
    if face is None:
        face = torch.zeros(1, reference_network.config.face_channels)
    features = [tokens.cpu() for tokens in features]
    framing = framing or filling(size_of(portrait[0]))
    return Identity(portrait.cpu(), motion, face.cpu(), features, framing)


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
    picture, box = size_of(image), face_box(region)
    framing = FITS[fit](picture, reference_network.config.canvas, box)
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
        framing,
    )
