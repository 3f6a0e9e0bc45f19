"""Training of the network that reads face and mouth off drawn frames, for the evaluation."""

import os
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from hallo3_core.evaluation.reader import SIDE, FaceReader

from .loop import DEVICE, Loop, Settings
from .pool import to_pixels
from .world.clips import person_of
from .world.drawing import draw
from .world.languages import Split
from .world.motion import sway
from .world.visemes import still_mouth

SETTINGS = Settings(steps=1000, rate=1e-3, matrix_rate=2e-3, average=0.99)
PEOPLE, FRAMES = 3000, 4
BATCH = 48
OPENING_WEIGHT = 10
"""Openings are a tenth of the face's height at most, boxes are shares of the picture."""


def portraits(folder: Path, split: Split, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (people, FRAMES, SIDE, SIDE, 3) uint8 and what is to be read off them
    (people, FRAMES, 9) float32."""
    files = [folder / f"{split}_{people}_{kind}.npy" for kind in ("faces", "places")]
    if not files[1].exists():
        folder.mkdir(parents=True, exist_ok=True)
        with Pool(os.cpu_count()) as pool:
            drawn = pool.imap(partial(_portraits, split), range(people), chunksize=8)
            for file, rows in zip(files, zip(*drawn, strict=True), strict=True):
                np.save(file, np.stack(rows))
    return tuple(np.load(file, mmap_mode="r") for file in files)


def _portraits(split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([19, index])
    person = person_of(split, index)
    poses = sway(FRAMES * 50, generator, generator.random(FRAMES * 50))
    pictures, places = [], []
    for i in range(FRAMES):
        opening = generator.random() * (generator.random() > 0.2)
        mouth = still_mouth(opening, generator.uniform(-1, 1), generator.random())
        frame = draw(person, poses[50 * i], mouth, (SIDE, SIDE), 2.0 * i)
        geometry = frame.geometry
        pictures.append(frame.picture)
        boxes = np.concatenate([geometry.face_box, geometry.mouth_box]) / SIDE
        places.append(np.concatenate([[geometry.mouth_share], boxes]))
    return np.stack(pictures), np.stack(places).astype(np.float32)


def batch(pool: tuple[np.ndarray, np.ndarray], step: int) -> tuple[Tensor, Tensor]:
    """Pictures (batch, 3, SIDE, SIDE) in [-1, 1], worsened as a model may, and their places."""
    generator = np.random.default_rng([23, step])
    people = generator.integers(len(pool[0]), size=BATCH)
    frames = generator.integers(FRAMES, size=BATCH)
    pictures = to_pixels(pool[0][people, frames][:, None])[:, :, 0]
    places = torch.from_numpy(pool[1][people, frames])
    half = BATCH // 2
    pictures[:half] = gaussian_blur(pictures[:half], [9, 9], [generator.uniform(0.3, 2.5)])
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(step))
    pictures = pictures + noise * generator.uniform(0, 0.1, BATCH)[:, None, None, None]
    return zoomed(pictures.float(), places, generator)


def zoomed(
    pictures: Tensor, places: Tensor, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Nearer or farther, and off the middle; black around."""
    scale = torch.from_numpy(generator.uniform(0.75, 1.3, (len(pictures), 1))).float()
    shift = torch.from_numpy(generator.uniform(-0.15, 0.15, (len(pictures), 2))).float()
    steps = (torch.arange(SIDE) + 0.5) / SIDE
    x = (steps.view(1, 1, -1) - 0.5 - shift[:, :1, None]) / scale[:, :, None]
    y = (steps.view(1, -1, 1) - 0.5 - shift[:, 1:, None]) / scale[:, :, None]
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1) * 2
    moved = F.grid_sample(pictures + 1, grid, align_corners=False) - 1
    boxes = (places[:, 1:].unflatten(1, (4, 2)) - 0.5) * scale[:, None] + 0.5 + shift[:, None]
    return moved, torch.cat([places[:, :1], boxes.flatten(1)], dim=1)


def losses(reader: FaceReader, pictures: Tensor, places: Tensor) -> dict[str, Tensor]:
    found = reader(pictures)
    return {
        "opening": OPENING_WEIGHT * F.l1_loss(found.opening, places[:, 0]),
        "face": F.l1_loss(found.face, places[:, 1:5]),
        "mouth": F.l1_loss(found.mouth, places[:, 5:]),
    }


def train(folder: Path, settings: Settings = SETTINGS) -> FaceReader:
    """The averaged reader."""
    torch.manual_seed(0)
    reader = FaceReader()
    pool = portraits(folder / "faces", "train", PEOPLE)
    loop = Loop(folder / "face_reader", reader, settings)
    loop.run(lambda step: losses(reader, *(part.to(DEVICE) for part in batch(pool, step))))
    return loop.finish()
