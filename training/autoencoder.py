"""Training of the video autoencoder.

The losses are absolute and squared error, differences of neighbouring pixels, and KL divergence.
diffusers' own code encodes and decodes clips in chunks. So the decoder is trained as it is used.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXSpatialNorm3D
from torch import Tensor, nn

from hallo3_core import builtin
from hallo3_core.autoencoder.vae import LATENT_SCALE

from .loop import DEVICE, Loop, Settings, mixed_precision
from .pool import pictures, to_pixels

POOL = ("train", 1200, 17, (128, 192))
"""Split, clips, frames and size of the pictures."""
KL = 1e-4
GRADIENT = 0.5
SQUARE = 4.0
MOVING = 10.0
"""Errors weigh more by this times how far a pixel is from its mean over time. Mouths and eyelids
are small."""
MOUTH = 20.0
"""Errors on a mouth weigh more by this."""
Kind = tuple[int, int, int, int]
"""Count, frames, height and width of a batch."""


@dataclass(frozen=True)
class AutoencoderStage:
    """A part of the training. Batches of several kinds take turns.

    At first, for the share `cropped` of the steps, they are crops, which vary more. Then they are
    whole canvases, which the norms see in use. Latents do not change where the encoder is frozen.
    """

    name: str
    crops: tuple[Kind, ...]
    whole: tuple[Kind, ...]
    cropped: float
    settings: Settings
    encoder: bool = True

    def kind(self, step: int) -> Kind:
        kinds = self.crops if step < self.cropped * self.settings.steps else self.whole
        return kinds[step % len(kinds)]


PICTURES = AutoencoderStage(
    "autoencoder",
    ((8, 1, 64, 96), (3, 9, 48, 64), (8, 1, 64, 96), (2, 17, 64, 64)),
    ((4, 1, 128, 192), (1, 9, 128, 192)),
    0.75,
    Settings(steps=5000, rate=1e-3, matrix_rate=1e-3, average=0.995),
)
MOVEMENT = AutoencoderStage(
    "autoencoder_movement",
    ((8, 9, 32, 48), (4, 9, 48, 64), (8, 9, 32, 48), (1, 17, 64, 96)),
    ((1, 9, 128, 192),),
    0.82,
    Settings(steps=3600, rate=1e-3, matrix_rate=1e-3, average=0.995),
)
MOUTHS = AutoencoderStage(
    "autoencoder_mouths",
    ((8, 9, 32, 48), (4, 9, 48, 64)),
    ((1, 9, 128, 192),),
    0.7,
    Settings(steps=1500, rate=1e-3, matrix_rate=1e-3, average=0.995),
    encoder=False,
)
STAGES = PICTURES, MOVEMENT, MOUTHS

Pool = tuple[np.ndarray, np.ndarray]


def batch(pool: Pool, kind: Kind, step: int) -> Tensor:
    """(batch, 4, frames, height, width): pixels, and 1 on the mouth."""
    generator = np.random.default_rng([7, step])
    count, *shape = kind
    return torch.stack([crop(pool, shape, generator) for _ in range(count)])


def crop(pool: Pool, shape: list[int], generator: np.random.Generator) -> Tensor:
    """A part of a random clip, (4, frames, height, width)."""
    index = generator.integers(len(pool[0]))
    frames, boxes = (rows[index] for rows in pool)
    first = generator.integers(len(frames) - shape[0] + 1)
    shown = slice(first, first + shape[0])
    pixels = to_pixels(frames[shown])
    # skin and walls have few colours: without this, one channel is hardly learnt
    pixels = pixels[generator.permutation(3)]
    rows = dress(torch.cat([pixels, mouths(boxes[shown], pixels.shape[-2:])]), generator)
    if generator.random() < 0.5:
        rows = rows.flip(-1)
    for axis, side, middle in zip((2, 3), shape[1:], chosen_place(rows, generator), strict=True):
        start = min(max(middle - side // 2, 0), rows.shape[axis] - side)
        rows = rows.narrow(axis, start, side)
    return rows


def mouths(boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(1, frames, height, width): 1 inside the boxes."""
    masks = torch.zeros(1, len(boxes), *size)
    for mask, (left, top, right, bottom) in zip(masks[0], boxes.round().astype(int), strict=True):
        mask[max(top, 0) : bottom, max(left, 0) : right] = 1
    return masks


def chosen_place(rows: Tensor, generator: np.random.Generator) -> tuple[int, int]:
    """Row and column of a random pixel. Pixels that move or show the mouth are more likely."""
    interest = rows[:3].var(1, correction=0).sum(0) + rows[3].mean(0).clamp(min=0) + 1e-3
    share = (interest.double() / interest.double().sum()).flatten().numpy()
    return divmod(int(generator.choice(len(share), p=share)), rows.shape[-1])


def dress(pixels: Tensor, generator: np.random.Generator) -> Tensor:
    """A picture as the model sees it: whole, a square between black bars, or a box on black."""
    height, width = pixels.shape[-2:]
    kind = generator.random()
    box = (0, height, 0, width)
    if kind < 0.4:
        box = (0, height, (width - height) // 2, (width + height) // 2)
    elif kind < 0.6:
        top, left = generator.integers(height // 2), generator.integers(width // 2)
        box = (top, top + height // 2, left, left + height // 2)
    top, bottom, left, right = box
    dressed = torch.full_like(pixels, -1)
    dressed[..., top:bottom, left:right] = pixels[..., top:bottom, left:right]
    return dressed


def losses(vae: AutoencoderKLCogVideoX, rows: Tensor, seed: int) -> dict[str, Tensor]:
    """Losses of a batch (batch, 4, frames, height, width): pixels in [-1, 1], and the mouth."""
    pixels, mouth = rows[:, :3], rows[:, 3:].clamp(min=0)
    with mixed_precision():
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.sample(
            torch.Generator().manual_seed(seed)
        )  # the same numbers on every device
        found = vae.decode(latents).sample
    error = found.float() - pixels
    slopes = sum(error.diff(dim=d).abs().mean() for d in (-1, -2))
    weight = 1 + MOVING * (pixels - pixels.mean(2, keepdim=True)).abs() + MOUTH * mouth
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return {
        "pixels": (weight * error.abs()).mean(),
        "squares": SQUARE * (weight * error.square()).mean(),
        "gradient": GRADIENT * slopes,
        "kl": KL * divergence,
    }


def train(folder: Path, stages: tuple[AutoencoderStage, ...] = STAGES) -> AutoencoderKLCogVideoX:
    """Train all stages. Returns the averaged autoencoder."""
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(**builtin.VAE)
    for name, parameter in vae.named_parameters():
        if "resnets" in name and "conv2" in name:
            nn.init.zeros_(parameter)
    pool = pictures(folder / "pictures", *POOL)
    for stage in stages:
        vae.encoder.requires_grad_(stage.encoder)
        loop = Loop(folder / stage.name, vae, stage.settings)

        def losses_at(step: int, vae=vae, stage=stage) -> dict[str, Tensor]:
            return losses(vae, batch(pool, stage.kind(step), step).to(DEVICE), step)

        loop.run(losses_at)
        vae = loop.finish()
    return vae


@torch.no_grad()
def normalise(vae: AutoencoderKLCogVideoX, frames: np.ndarray) -> None:
    """Scale the channels of the latents to a mean square of 1, times `LATENT_SCALE`.

    `frames` are (clips, frames, height, width, 3), uint8. The decoder is scaled back, so that it
    makes the same pictures.
    """
    pixels = (to_pixels(clip[None]).to(vae.device) for clip in frames)
    latents = torch.stack([vae.encode(clip).latent_dist.mean for clip in pixels])
    scale = 1 / (LATENT_SCALE * latents.pow(2).mean(dim=(0, 1, 3, 4, 5)).sqrt())
    out = vae.encoder.conv_out.conv
    mean, log_variance = slice(None, len(scale)), slice(len(scale), None)
    out.weight[mean] *= scale.view(-1, 1, 1, 1, 1)
    out.bias[mean] *= scale
    out.bias[log_variance] += 2 * scale.log()
    vae.decoder.conv_in.conv.weight /= scale.view(1, -1, 1, 1, 1)
    for module in vae.decoder.modules():
        if isinstance(module, CogVideoXSpatialNorm3D):
            for conv in (module.conv_y.conv, module.conv_b.conv):
                conv.weight /= scale.view(1, -1, 1, 1, 1)
