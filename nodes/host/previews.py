"""Previews while sampling, with the colours of the portrait and the edges of the video.

Finished segments are shown by their last frame.
"""

import comfy.latent_formats
import torch
import torch.nn.functional as F
from comfy.taesd.taehv import TAEHV
from PIL import Image
from torch import Tensor

from ...hallo3_core.media.picture import to_bytes
from ...hallo3_core.network.config import SPACE_COMPRESSION
from ...hallo3_core.portrait.encode import Identity
from .tiny_decoder import decode_frame

CAUTION = 0.01
"""The weight of the ridge. It limits colours that the portrait does not have."""

SMALLEST = 1e-6
"""Keeps the solution finite for a picture of one colour."""


class Hallo3Latents(comfy.latent_formats.CogVideoX1_5):
    """CogVideoX's latents. The factors from latents to RGB are fitted to the portrait.

    A portrait and its latents are thousands of pairs of 16 numbers and a colour. That is enough to
    fit a linear map, for any autoencoder. The preview leaves out the canvas around the picture, as
    the video does.
    """

    def preview_with(self, decoder: TAEHV, identity: Identity) -> None:
        """Previews show the middle of the segment, decoded by a tiny decoder.

        ComfyUI passes the latents through `latent_rgb_factors_reshape` and then takes a linear map
        of the channels to RGB. The channels are already RGB, so the map changes nothing.
        """
        rows, columns = identity.place

        def decoded(latents: Tensor) -> Tensor:
            middle = latents.shape[2] // 2
            frame = self.process_out(latents[:1, :, middle : middle + 1])
            return decode_frame(decoder, frame)[..., rows, columns]

        self.latent_rgb_factors_reshape = decoded
        self.latent_rgb_factors = torch.eye(3).tolist()
        self.latent_rgb_factors_bias = [0.0] * 3

    def learn_colours(self, identity: Identity) -> None:
        rows, columns = map(latent_pixels, identity.place)
        # on the CPU, because ComfyUI copies the preview from a card and does not wait for it
        self.latent_rgb_factors_reshape = lambda latents: latents[:1, :, :1, rows, columns].cpu()
        latents = identity.motion[0, :, 0].flatten(1).T.float().cpu()
        small = F.avg_pool2d(identity.portrait, SPACE_COMPRESSION)
        colours = small[0].flatten(1).T.float().cpu()
        latents_mean, colours_mean = latents.mean(0), colours.mean(0)
        spread = latents - latents_mean
        covariance = spread.T @ spread / len(spread)
        ridge = (CAUTION * covariance.diagonal().mean() + SMALLEST) * torch.eye(len(covariance))
        factors = torch.linalg.solve(
            covariance + ridge, spread.T @ (colours - colours_mean) / len(spread)
        )
        self.latent_rgb_factors = factors.tolist()
        self.latent_rgb_factors_bias = (colours_mean - latents_mean @ factors).tolist()


def shown(frame: Tensor) -> tuple[str, Image.Image, int]:
    """A frame (height, width, 3) in [0, 1] as the preview of a progress bar."""
    picture = Image.fromarray(to_bytes(frame.movedim(-1, 0)))
    return "JPEG", picture, max(picture.size)


def latent_pixels(place: slice) -> slice:
    """The latent pixels that are completely in a range of pixels; at least one."""
    first, end = -(-place.start // SPACE_COMPRESSION), place.stop // SPACE_COMPRESSION
    return slice(first, max(end, first + 1))
