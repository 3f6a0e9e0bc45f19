"""Small networks and random shots, examples and batches for the tests of training."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hallo3_core import builtin
from training import autoencoder
from training.examples import Example, Examples, Shot
from training.loop import Settings
from training.memory import empty_batch
from training.networks import Batch, Networks

CONFIG = replace(
    builtin.CONFIG, layers=1, heads=1, latent_height=4, latent_width=6, text_tokens=3, text_width=8
)
"""A canvas of 32 x 48 pixels."""
WIDE = replace(CONFIG, layers=2, latent_height=12, latent_width=18)
"""A canvas of 96 x 144 pixels."""
SETTINGS = Settings(steps=8, rate=1e-2, matrix_rate=1e-2, warmup=2)


def example() -> Example:
    """For `CONFIG`."""
    torch.manual_seed(0)
    video, reference, motion = (torch.randn(16, f, 4, 6) for f in (13, 1, 1))
    speech, face = torch.randn(49, 5, 12, 768), torch.zeros(512)
    region, lips = torch.ones(4, 6), torch.zeros(4, 6)
    return Example(video, reference, motion, speech, face, region, lips)


class One(Examples):
    """The same example every time."""

    def __init__(self):
        self.example = example()

    def __len__(self) -> int:
        return 1

    def draw(self, generator) -> Example:
        return self.example


def shot() -> Shot:
    """For `CONFIG`."""
    torch.manual_seed(1)
    return Shot(
        frames=torch.rand(3, 49, 32, 48) * 2 - 1,
        portraits=torch.rand(2, 3, 32, 48) * 2 - 1,
        regions=torch.ones(2, 32, 48),
        waveform=torch.randn(98 * 640),
        start=20,
        face=torch.zeros(512),
        lips=torch.ones(32, 48),
    )


class TwoShots:
    """The same shot twice."""

    def __init__(self, name: str):
        self.name = name

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Shot:
        return shot()

    def title(self, index: int) -> str:
        return f"{self.name} {index}"


def mouths() -> Tensor:
    """Mouths in two pictures for `WIDE`, at different places."""
    lips = torch.zeros(2, 12, 18)
    lips[0, 9:11, 3:7] = lips[1, 5:6, 14:17] = 0.5
    return lips


def random_batch(networks: Networks, count: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(0)
    batch = empty_batch(networks, count)
    drawn = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in vars(batch).items()
        if value.is_floating_point()
    }
    return replace(batch, **drawn, timesteps=torch.full((count,), 500))


def batch_with_mouths(networks: Networks) -> Batch:
    """Two examples for networks of `WIDE`."""
    return replace(random_batch(networks, 2), timesteps=torch.tensor([999, 300]), lips=mouths())


def clips_of_noise() -> tuple[np.ndarray, np.ndarray]:
    """Two clips of 9 frames of 32 x 48 pixels, and the boxes of their mouths."""
    frames = np.random.default_rng(0).integers(0, 255, (2, 9, 32, 48, 3), np.uint8)
    return frames, np.tile(np.array([20.0, 16.0, 28.0, 24.0]), (2, 9, 1))


def autoencoder_stage(settings: Settings, encoder: bool = True) -> autoencoder.AutoencoderStage:
    """For `clips_of_noise`."""
    kinds = ((1, 9, 32, 48),)
    return autoencoder.AutoencoderStage("short", kinds, kinds, 0.5, settings, encoder)
