"""Training of the video autoencoder: absolute and squared error, gradients, KL.

Clips go through diffusers' own chunks, so that streamed decoding is what was trained.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXSpatialNorm3D
from torch import Tensor, nn

from hallo3_core import builtin
from hallo3_core.vae import LATENT_SCALE

from .loop import DEVICE, Loop, Settings
from .pool import pictures, to_pixels

SETTINGS = Settings(steps=5000, rate=1e-3, matrix_rate=1e-3, average=0.995)
POOL = ("train", 1200, 17, (128, 192))
"""Split, clips, frames and size of the pictures."""
CROPS = ((8, 1, 64, 96), (3, 9, 48, 64), (8, 1, 64, 96), (2, 17, 64, 64))
WHOLE = ((4, 1, 128, 192), (1, 9, 128, 192))
"""Count, frames, height and width of batches that are seen in turn: crops first, which vary more,
then whole canvases, as the norms see them later."""
CROPPED = 0.75
"""Share of the steps that see crops."""
KL = 1e-4
GRADIENT = 0.5
SQUARE = 4.0
MOVING = 10.0
"""Weight of an error for every unit by which a pixel differs from its mean over time: mouths and
lids are small."""


def batch(pool: np.ndarray, step: int, steps: int) -> Tensor:
    """(batch, 3, frames, height, width)."""
    generator = np.random.default_rng([7, step])
    kinds = CROPS if step < CROPPED * steps else WHOLE
    count, *shape = kinds[step % len(kinds)]
    return torch.stack([crop(pool, shape, generator) for _ in range(count)])


def crop(pool: np.ndarray, shape: list[int], generator: np.random.Generator) -> Tensor:
    """A part of a random clip, (3, frames, height, width)."""
    clip = pool[generator.integers(len(pool))]
    first = generator.integers(len(clip) - shape[0] + 1)
    pixels = dress(to_pixels(clip[first : first + shape[0]]), generator)
    pixels = pixels[generator.permutation(3)]  # else skin and walls leave one colour unlearnt
    if generator.random() < 0.5:
        pixels = pixels.flip(-1)
    for axis, side, middle in zip((2, 3), shape[1:], moving_place(pixels, generator), strict=True):
        start = min(max(middle - side // 2, 0), pixels.shape[axis] - side)
        pixels = pixels.narrow(axis, start, side)
    return pixels


def moving_place(pixels: Tensor, generator: np.random.Generator) -> tuple[int, int]:
    """Row and column of a pixel; the more it moves, the likelier."""
    motion = pixels.var(1, correction=0).sum(0).double() + 1e-3
    share = (motion / motion.sum()).flatten().numpy()
    return divmod(int(generator.choice(len(share), p=share)), motion.shape[1])


def dress(pixels: Tensor, generator: np.random.Generator) -> Tensor:
    """Pictures as the model meets them: whole, a square between black bars, or a face on black."""
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


def losses(vae: AutoencoderKLCogVideoX, pixels: Tensor, seed: int) -> dict[str, Tensor]:
    """Of (batch, 3, frames, height, width) in [-1, 1]."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.sample(torch.Generator(pixels.device).manual_seed(seed))
        found = vae.decode(latents).sample
    error = found.float() - pixels
    slopes = sum(error.diff(dim=d).abs().mean() for d in (-1, -2))
    weight = 1 + MOVING * (pixels - pixels.mean(2, keepdim=True)).abs()
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return {
        "pixels": (weight * error.abs()).mean(),
        "squares": SQUARE * error.square().mean(),
        "gradient": GRADIENT * slopes,
        "kl": KL * divergence,
    }


def train(folder: Path, settings: Settings = SETTINGS) -> AutoencoderKLCogVideoX:
    """The averaged autoencoder."""
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(**builtin.VAE)
    for name, parameter in vae.named_parameters():
        if "resnets" in name and "conv2" in name:
            nn.init.zeros_(parameter)
    pool = pictures(folder / "pictures", *POOL)
    loop = Loop(folder / "autoencoder", vae, settings)
    loop.run(lambda step: losses(vae, batch(pool, step, settings.steps).to(DEVICE), step))
    return loop.result


@torch.no_grad()
def psnr(vae: AutoencoderKLCogVideoX, frames: np.ndarray) -> Tensor:
    """Of every one of (clips, frames, height, width, 3) uint8 clips, in dB."""
    found = []
    for clip in frames:
        pixels = to_pixels(clip[None])
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        found.append(-10 * ((decoded - pixels) / 2).pow(2).mean().log10())
    return torch.stack(found)


@torch.no_grad()
def normalise(vae: AutoencoderKLCogVideoX, frames: np.ndarray) -> None:
    """Scale the channels so that scaled latents of (clips, frames, height, width, 3) uint8 have a
    mean square of 1, and the decoder so that nothing else changes."""
    latents = torch.stack([vae.encode(to_pixels(clip[None])).latent_dist.mean for clip in frames])
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
