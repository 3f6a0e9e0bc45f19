"""Training of the network that finds face and mouth in drawn frames, for the evaluation."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from hallo3_core.autoencoder.images import decode_images
from hallo3_core.autoencoder.vae import LATENT_SCALE
from hallo3_core.evaluation.reader import PICTURE_SIDE, FaceReader
from hallo3_core.media.picture import to_uint8

from .loop import DEVICE, Loop, Settings
from .pool import kept, on_all_cores, to_pixels
from .world.clips import Clip, clip, person_of
from .world.drawing import Geometry, draw
from .world.languages import Split
from .world.motion import sway
from .world.visemes import still_mouth

Pool = tuple[np.ndarray, np.ndarray]
"""Pictures (clips, frames, PICTURE_SIDE, PICTURE_SIDE, 3) uint8, and right answers (clips, frames,
9) float32."""
SETTINGS = Settings(steps=4000, rate=1e-3, matrix_rate=2e-3, average=0.99)
PEOPLE, FRAMES = 3000, 4
DECODED, DECODED_FRAMES = 600, 9
"""Clips that went through the autoencoder, and frames in each."""
BATCH = 48
OPENING_WEIGHT = 10
"""Openings are at most a tenth of the face's height; boxes are shares of the picture."""


def portraits(folder: Path, split: Split, people: int) -> Pool:
    """Faces with mouths of random shapes."""
    files = [folder / f"{split}_{people}_{kind}.npy" for kind in ("faces", "places")]
    return kept(files, lambda: on_all_cores(partial(_portraits, split), people))


def _portraits(split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([19, index])
    person = person_of(split, index)
    poses = sway(FRAMES * 50, generator, generator.random(FRAMES * 50))
    pictures, read = [], []
    for i in range(FRAMES):
        opening = generator.random() * (generator.random() > 0.2)
        mouth = still_mouth(opening, generator.uniform(-1, 1), generator.random())
        frame = draw(person, poses[50 * i], mouth, (PICTURE_SIDE, PICTURE_SIDE), 2.0 * i)
        pictures.append(frame.picture)
        read.append(places(frame.geometry))
    return np.stack(pictures), np.stack(read)


def decoded(folder: Path, split: Split, clips: int, vae: AutoencoderKLCogVideoX) -> Pool:
    """Talking people after encoding and decoding by the autoencoder."""
    files = [folder / f"{split}_{clips}_decoded_{kind}.npy" for kind in ("faces", "places")]
    made = (
        clip(split, index, (PICTURE_SIDE, PICTURE_SIDE), DECODED_FRAMES) for index in range(clips)
    )
    return kept(files, lambda: (_decoded(shown, vae) for shown in made))


@torch.no_grad()
def _decoded(shown: Clip, vae: AutoencoderKLCogVideoX) -> tuple[np.ndarray, np.ndarray]:
    device = next(vae.parameters()).device
    latents = vae.encode(to_pixels(shown.frames[None]).to(device)).latent_dist.mean
    found = decode_images(vae, LATENT_SCALE * latents, len(shown.frames))
    return to_uint8(found).cpu().numpy(), places(shown.geometry)


def places(geometry: Geometry) -> np.ndarray:
    """(..., 9) float32, the right answers: the opening, the face's box and the mouth's box."""
    boxes = np.concatenate([geometry.face_box, geometry.mouth_box], axis=-1) / PICTURE_SIDE
    return np.concatenate([geometry.mouth_share[..., None], boxes], axis=-1).astype(np.float32)


def drawn_from(pool: Pool, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    chosen = tuple(generator.integers(size, size=count) for size in pool[0].shape[:2])
    return to_pixels(pool[0][chosen][:, None])[:, :, 0], torch.from_numpy(pool[1][chosen])


def batch(sharp: Pool, worn: Pool, step: int) -> tuple[Tensor, Tensor]:
    """Pictures (batch, 3, PICTURE_SIDE, PICTURE_SIDE) in [-1, 1], and the right answers (batch, 9).

    A quarter is as drawn, a quarter is blurred, and half went through the autoencoder. All get
    noise of different strength.
    """
    generator = np.random.default_rng([23, step])
    parts = [drawn_from(pool, BATCH // 2, generator) for pool in (sharp, worn)]
    pictures, places = (torch.cat(part) for part in zip(*parts, strict=True))
    some = BATCH // 4
    pictures[:some] = gaussian_blur(pictures[:some], [9, 9], [generator.uniform(0.3, 2.5)])
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(step))
    pictures = pictures + noise * generator.uniform(0, 0.1, BATCH)[:, None, None, None]
    return zoomed(pictures.float(), places, generator)


def zoomed(
    pictures: Tensor, places: Tensor, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Pictures scaled and shifted at random, on black, with their answers changed to match."""
    scale = torch.from_numpy(generator.uniform(0.75, 1.3, (len(pictures), 1))).float()
    shift = torch.from_numpy(generator.uniform(-0.15, 0.15, (len(pictures), 2))).float()
    steps = (torch.arange(PICTURE_SIDE) + 0.5) / PICTURE_SIDE
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


def train(folder: Path, vae: AutoencoderKLCogVideoX, settings: Settings = SETTINGS) -> FaceReader:
    """Train the reader. Returns its average."""
    torch.manual_seed(0)
    reader = FaceReader()
    sharp = portraits(folder / "faces", "train", PEOPLE)
    worn = decoded(folder / "faces", "train", DECODED, vae)
    loop = Loop(folder / "face_reader", reader, settings)

    def losses_at(step: int) -> dict[str, Tensor]:
        pictures, read = batch(sharp, worn, step)
        return losses(reader, pictures.to(DEVICE), read.to(DEVICE))

    loop.run(losses_at)
    return loop.finish()
