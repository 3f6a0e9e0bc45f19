"""Training of the decoder on the latents that the denoiser makes, for sharp pictures.

These latents are a little wrong. A decoder that has seen only right ones draws blotches from them.
If it learns the right frames by absolute error alone, its pictures are blurred. So a critic judges
patches of the frames as well: a PatchGAN (Isola et al. 2017) with the hinge loss. It sees two
frames at a time, so it also notices flicker. The encoder does not change, and so no latents do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from hallo3_core import builtin
from hallo3_core.autoencoder.lean import make_lean
from hallo3_core.autoencoder.vae import LATENT_SCALE
from hallo3_core.network.config import LATENT_FRAMES, SEGMENT_FRAMES
from hallo3_core.sampling.schedule import Schedule, spaced

from .denoiser import batch_of
from .distill import after
from .drawn import DrawnShots
from .examples import Example, Examples
from .loop import DEVICE, Loop, Settings
from .networks import Networks
from .pool import to_pixels
from .trajectories import conditioned

SETTINGS = Settings(steps=1640, rate=3e-4, betas=(0.5, 0.95), average=0.998)
CROP = (6, 8)
"""Height and width of the latents of a crop."""
COUNT = 2
"""Crops in a batch. Half of them are from the denoiser, and half from drawings."""
WHOLE = 0.98
"""After this share of the steps, whole canvases are decoded. The norms see these in use."""
CHUNK = 2
"""Latent frames that are decoded at once, after the first three."""
NOISE = 0.3
"""Largest standard deviation of the noise on the latents of drawings."""
MOUTH = 10.0
"""Errors on a mouth weigh more by this."""
GRADIENT, FOOLING, MATCHING = 0.5, 0.06, 0.5


class Critic(nn.Module):
    """Judges patches of two successive frames: above 0 for real ones."""

    def __init__(self, width: int = 32):
        super().__init__()
        sizes = ((6, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 1), (4 * width, 1, 1))
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(inputs, outputs, 2 + stride, stride, padding=1))
            for inputs, outputs, stride in sizes
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """The features of all layers. The last one is the judgement.

        `frames` is (batch, 3, frames, height, width) in [-1, 1].
        """
        pairs = torch.cat([frames[:, :, :-1], frames[:, :, 1:]], dim=1)
        x, found = pairs.transpose(1, 2).flatten(0, 1), []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
            x = F.leaky_relu(x, 0.2)
        return found


class Pair(nn.Module):
    """The decoder and its critic, trained at the same time.

    `quick` has the decoder's weights in the layers of `autoencoder/lean.py`, which are faster but
    not for gradients.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX):
        super().__init__()
        self.decoder, self.critic = vae.decoder, Critic()
        shared = deepcopy(vae, {id(weight): weight for weight in vae.parameters()})
        self.__dict__["quick"] = make_lean(shared).decoder  # not registered twice

    def decode(self, latents: Tensor) -> Tensor:
        """The frames of the last `CHUNK` of scaled latents, or of all if they are the first."""
        latents, cache = latents / LATENT_SCALE, None
        if latents.shape[2] > CHUNK + 1:
            with torch.no_grad():
                _, cache = self.quick(latents[:, :, :-CHUNK])
            latents = latents[:, :, -CHUNK:]
        return self.decoder(latents, conv_cache=cache)[0]

    @contextmanager
    def critic_frozen(self) -> Iterator[None]:
        """Gradients pass through the critic, but do not reach its weights."""
        self.critic.requires_grad_(False)
        yield
        self.critic.requires_grad_(True)

    def losses(self, latents: Tensor, pixels: Tensor, mouth: Tensor) -> dict[str, Tensor]:
        """Losses of the decoder, and `judging` of the critic.

        `pixels` are the right frames, and `mouth` (batch, 1, 1, height, width) is 1 on the mouth.
        """
        found = self.decode(latents)
        error = found - pixels
        with torch.no_grad():
            real = self.critic(pixels)
        with self.critic_frozen():
            judged = self.critic(found)
        matched = [(a - b).abs().mean() for a, b in zip(judged[:-1], real[:-1], strict=True)]
        hinges = (1 - self.critic(pixels)[-1]).relu(), (1 + self.critic(found.detach())[-1]).relu()
        return {
            "pixels": ((1 + MOUTH * mouth) * error.abs()).mean(),
            "gradient": GRADIENT * sum(error.diff(dim=d).abs().mean() for d in (-1, -2)),
            "matching": MATCHING * sum(matched),
            "fooling": -FOOLING * judged[-1].mean(),
            "judging": sum(hinge.mean() for hinge in hinges),
        }


@dataclass(frozen=True)
class Material:
    """What the decoder learns from.

    `frames` (shots, 49, height, width, 3) uint8 are drawings, and `made` (shots, 16, 13, h, w) the
    latents that the denoiser makes of the same shots. Both are mapped from files.
    """

    examples: Examples
    frames: np.ndarray
    made: np.ndarray

    def draw(self, step: int, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
        """A batch of scaled latents, their right frames, and masks of the mouths."""
        generator = np.random.default_rng([41, step])
        first = CHUNK * int(generator.integers(LATENT_FRAMES // CHUNK))
        kinds = [bool(generator.integers(2))] if whole else [i % 2 == 0 for i in range(COUNT)]
        rows = [self.crop(first, made, whole, generator) for made in kinds]
        return tuple(torch.stack(parts).to(DEVICE) for parts in zip(*rows, strict=True))

    def crop(
        self, first: int, made: bool, whole: bool, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents of the chunk before `first` and of that at `first`, and the latter's frames."""
        index = int(generator.integers(len(self.frames)))
        example = self.examples.at(index, generator)
        latents = torch.from_numpy(self.made[index]).float() if made else example.video
        if not made:
            noise = torch.Generator().manual_seed(int(generator.integers(2**62)))
            strength = NOISE * generator.random() ** 2
            latents = latents + strength * torch.randn(latents.shape, generator=noise)
        shown = slice(0, 9) if first == 0 else slice(4 * first + 1, 4 * first + 9)
        pixels = to_pixels(self.frames[index, shown])
        start = 0 if first == 0 else first - CHUNK
        latents = latents[:, start : first + CHUNK + 1]
        lips = example.lips[None, None]
        if not whole:
            top, left = crop_place(example, generator)
            latents, lips = cut(latents, top, left), cut(lips, top, left)
            pixels = cut(pixels, top, left, scale=8)
        return latents, pixels, F.interpolate(lips, pixels.shape[-2:])


def crop_place(example: Example, generator: np.random.Generator) -> tuple[int, int]:
    """Top and left of a crop in latents. It shows the mouth in half of the cases."""
    height, width = example.lips.shape
    most = height - CROP[0], width - CROP[1]
    if generator.random() < 0.5 and example.lips.sum() > 0:
        places = example.lips.nonzero()
        middle = places[int(generator.integers(len(places)))]
        moved = generator.integers(-1, 2, size=2)
        top, left = (int(middle[i]) - CROP[i] // 2 + int(moved[i]) for i in range(2))
        return min(max(top, 0), most[0]), min(max(left, 0), most[1])
    return int(generator.integers(most[0] + 1)), int(generator.integers(most[1] + 1))


def cut(rows: Tensor, top: int, left: int, scale: int = 1) -> Tensor:
    height, width = CROP
    rows = rows[..., scale * top : scale * (top + height), :]
    return rows[..., scale * left : scale * (left + width)]


@torch.no_grad()
def prepare(
    folder: Path, shots: DrawnShots, examples: Examples, networks: Networks, steps: int
) -> Material:
    """Draw the frames of the shots, and let the denoiser make their latents in a few steps.

    The files are made in `folder`, if they are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count, config = len(shots), networks.config
    size = config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width
    frames = open_array(folder / "frames.npy", np.uint8, (count, SEGMENT_FRAMES, *config.canvas, 3))
    made = open_array(folder / "made.npy", np.float16, (count, *size))
    networks.to(DEVICE)
    for index in range(count):
        if not made[index].any():
            pixels = (shots[index].frames + 1) * 127.5
            frames[index] = pixels.round().byte().movedim(0, -1).numpy()
            example = examples.at(index, np.random.default_rng([43, index]))
            made[index] = roll_out(networks, example, steps, index)[0].half().cpu().numpy()
    return Material(examples, frames, made)


def open_array(file: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Map an array from a file. If the file is missing, it is made with zeros."""
    if file.exists():
        return np.lib.format.open_memmap(file, "r+")
    return np.lib.format.open_memmap(file, "w+", dtype, shape)


def roll_out(networks: Networks, example: Example, steps: int, seed: int) -> Tensor:
    """(1, 16, 13, h, w): the latents that the denoiser makes with the conditions of an example."""
    noise = torch.Generator().manual_seed(seed)
    x = torch.randn(1, *example.video.shape, generator=noise).to(DEVICE)
    schedule = Schedule.plain(spaced(steps))
    batch = batch_of([example], x, schedule.timesteps[:1], x).to(DEVICE)
    return after(conditioned(networks, batch), x, schedule, steps)


def train(
    folder: Path, vae: AutoencoderKLCogVideoX, material: Material, settings: Settings = SETTINGS
) -> AutoencoderKLCogVideoX:
    """Train the decoder of `vae`. Returns `vae` with the averaged decoder."""
    torch.manual_seed(0)
    pair = Pair(vae)
    vae.requires_grad_(False)
    pair.decoder.requires_grad_(True)
    loop = Loop(folder / "decoder", pair, settings)

    def losses_at(step: int) -> dict[str, Tensor]:
        return pair.losses(*material.draw(step, step >= WHOLE * settings.steps))

    loop.run(losses_at)
    loop.finish()
    return vae


def material_of(folder: Path, examples: Examples, networks: Networks) -> Material:
    """The material from the first shots of the drawn world."""
    shots = DrawnShots("train", len(examples), builtin.CONFIG)
    return prepare(folder / "decoder_material", shots, examples, networks, builtin.STEPS)
