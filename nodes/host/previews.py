"""Previews while sampling, in the colours and with the edges of the video."""

import comfy.latent_formats
import torch
import torch.nn.functional as F

from ...hallo3_core.network.config import SPACE_COMPRESSION
from ...hallo3_core.portrait.encode import Identity

CAUTION = 0.01
"""Weight of the ridge that keeps colours tame which the portrait does not have."""

SMALLEST = 1e-6
"""Keeps the solution finite for a picture of a single colour."""


class Hallo3Latents(comfy.latent_formats.CogVideoX1_5):
    """CogVideoX's latents; the factors from them to RGB are fitted to the portrait at hand.

    A portrait and its own latents are thousands of pairs of a colour and 16 numbers, enough for
    a straight line between them, whatever autoencoder made them. What the video does not show of
    the canvas, the preview does not, either.
    """

    def learn_colours(self, identity: Identity) -> None:
        rows, columns = map(latent_pixels, identity.place)
        # ComfyUI copies the picture from a card and does not wait for it, so it is made without one
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


def latent_pixels(place: slice) -> slice:
    """The latent pixels that lie wholly in a range of pixels, at least one."""
    first, end = -(-place.start // SPACE_COMPRESSION), place.stop // SPACE_COMPRESSION
    return slice(first, max(end, first + 1))
