"""What the denoiser is trained on: shots, and the same shots as latents and speech features."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from transformers import Wav2Vec2Model

from hallo3_core.autoencoder.motion import DROPPED_PIXELS
from hallo3_core.autoencoder.vae import LATENT_SCALE
from hallo3_core.network.config import (
    AUDIO_WINDOW,
    MOTION_FRAMES,
    SEGMENT_FRAMES,
    SPACE_COMPRESSION,
)
from hallo3_core.speech.encode import encode_speech
from hallo3_core.speech.windows import windows

from .loop import DEVICE

MARGIN = AUDIO_WINDOW // 2
"""Frames that an audio window reaches to each side."""
VARIANTS = 2
"""How many portraits, each with its own motion noise and mask, a shot has."""
NOISE_MEAN, NOISE_SPREAD = -3.0, 0.5
"""Mean and standard deviation of the logarithm of sigma, the noise on motion frames."""


@dataclass(frozen=True)
class Shot:
    """49 frames with speech, on the model's canvas, pixels in [-1, 1].

    - `frames` (3, 49, height, width)
    - `portraits` (VARIANTS, 3, height, width): frames of the same person
    - `regions` (VARIANTS, height, width): 1 on the faces of the portraits
    - `waveform` (samples,): the whole speech, at 16 kHz. If several people speak, it is
      (voices, samples): the picture has a column for each of them, all of one width
    - `start`: the frame of the speech at which the shot begins
    - `face` (512,): the face embedding
    - `lips` (height, width): 1 where the mouth is in any frame; 0 everywhere if that is unknown
    - `text` (tokens, width): the encoded caption, if there is one
    """

    frames: Tensor
    portraits: Tensor
    regions: Tensor
    waveform: Tensor
    start: int
    face: Tensor
    lips: Tensor
    text: Tensor | None = None


@dataclass(frozen=True)
class Example:
    """A shot as the denoiser sees it, float32.

    - `video` (16, 13, h, w), `reference` and `motion` (16, 1, h, w): scaled latents
    - `speech` (49, 5, 12, channels), or (voices, 49, 5, 12, channels)
    - `face` (512,): the face embedding
    - `region` and `lips` (h, w): how much of each latent pixel is face, and mouth
    - `text` (tokens, width): the encoded caption, if there is one
    """

    video: Tensor
    reference: Tensor
    motion: Tensor
    speech: Tensor
    face: Tensor
    region: Tensor
    lips: Tensor
    text: Tensor | None = None


@torch.no_grad()
def encode(
    vae: AutoencoderKLCogVideoX, encoder: Wav2Vec2Model, shot: Shot, generator: torch.Generator
) -> dict[str, Tensor]:
    """What is stored of a shot: means and standard deviations of latents, and speech features."""

    def moments(pixels: Tensor) -> Tensor:
        posterior = vae.encode(pixels.to(DEVICE, vae.dtype)).latent_dist
        return torch.stack([posterior.mean, posterior.std]).half().cpu()

    black = torch.tensor(-1.0)
    references = torch.where(shot.regions[:, None] > 0, shot.portraits, black)
    rows = {
        "video": moments(shot.frames[None])[:, 0],
        "reference": moments(references[:, :, None]),
        "motion": moments(torch.stack([motion(shot, i, generator) for i in range(VARIANTS)])),
        "speech": heard(encoder, shot.waveform, shot.start),
        "face": shot.face,
        "region": F.avg_pool2d(shot.regions, SPACE_COMPRESSION),
        "lips": F.avg_pool2d(shot.lips[None], SPACE_COMPRESSION)[0],
    }
    return rows if shot.text is None else rows | {"text": shot.text.half()}


def heard(encoder: Wav2Vec2Model, waveform: Tensor, start: int) -> Tensor:
    """The features of a shot and of a margin around it, float16.

    (frames, 12, channels), or (voices, frames, 12, channels) of (voices, samples).
    """
    if waveform.ndim > 1:
        return torch.stack([heard(encoder, voice, start) for voice in waveform])
    features, first = encode_speech(encoder, waveform).features, max(start - MARGIN, 0)
    speech = features[first : start + SEGMENT_FRAMES + MARGIN]
    frames = torch.arange(-MARGIN, SEGMENT_FRAMES + MARGIN) + start - first
    return speech[frames.clamp(0, len(speech) - 1)].half()


def windows_of(speech: Tensor) -> Tensor:
    """The windows of what `heard` gave, float32: (49, 5, 12, channels), or those of all voices."""
    if speech.ndim > 3:
        return torch.stack([windows_of(voice) for voice in speech])
    return windows(speech.float(), MARGIN, MARGIN + SEGMENT_FRAMES)


def motion(shot: Shot, variant: int, generator: torch.Generator) -> Tensor:
    """(3, 3, height, width): a portrait, then the first two frames with noise and black pixels."""
    log_sigma = NOISE_MEAN + NOISE_SPREAD * torch.randn((), generator=generator)
    first = shot.frames[:, :MOTION_FRAMES]
    noisy = first + log_sigma.exp() * torch.randn(first.shape, generator=generator)
    kept = torch.rand(first.shape[-2:], generator=generator) >= DROPPED_PIXELS
    return torch.cat([shot.portraits[variant][:, None], noisy * kept], dim=1)


class Examples:
    """Encoded shots in a folder, one file for each."""

    def __init__(self, folder: Path, count: int):
        self.files = [folder / f"{index:06}.safetensors" for index in range(count)]

    def __len__(self) -> int:
        return len(self.files)

    def draw(self, generator: np.random.Generator) -> Example:
        """A random shot and variant, with latents sampled from their posteriors."""
        return self.at(int(generator.integers(len(self))), generator)

    def at(self, index: int, generator: np.random.Generator) -> Example:
        """A shot in a random variant, with latents sampled from their posteriors."""
        rows = load_file(self.files[index])
        variant = int(generator.integers(VARIANTS))
        noise = torch.Generator().manual_seed(int(generator.integers(2**62)))

        text = rows.get("text")

        def sample(moments: Tensor) -> Tensor:
            mean, std = moments.float()
            return LATENT_SCALE * (mean + std * torch.randn(mean.shape, generator=noise))

        return Example(
            sample(rows["video"]),
            sample(rows["reference"][:, variant]),
            sample(rows["motion"][:, variant]),
            windows_of(rows["speech"]),
            rows["face"],
            rows["region"][variant],
            rows["lips"],
            None if text is None else text.float(),
        )


class Shots(Protocol):
    """Shots by their number. `title` identifies a shot, so that changed shots are encoded again."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Shot: ...

    def title(self, index: int) -> str: ...


def prepare(
    folder: Path, shots: Shots, vae: AutoencoderKLCogVideoX, encoder: Wav2Vec2Model
) -> Examples:
    """Encode the shots that are missing in `folder`, or were encoded by other networks.

    Meanwhile another process makes the next shots. It is spawned, not forked: threads, graphics
    cards and sessions of onnxruntime do not survive a fork. At the end the networks are on the CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    examples = Examples(folder, len(shots))
    networks = digest(vae.encoder, encoder)
    titles = [f"{shots.title(index)} {networks}" for index in range(len(shots))]
    missing = [i for i, file in enumerate(examples.files) if title_of(file) != titles[i]]
    if not missing:
        return examples
    loader = DataLoader(
        Subset(shots, missing), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    nn.Module.to(vae, DEVICE)
    encoder.to(DEVICE)
    for index, shot in zip(missing, loader, strict=True):
        file = examples.files[index]
        partial = file.with_suffix(".partial")
        rows = encode(vae, encoder, shot, torch.Generator().manual_seed(index))
        save_file(rows, partial, {"title": titles[index]})
        partial.replace(file)
    nn.Module.to(vae, "cpu")
    encoder.cpu()
    return examples


def title_of(file: Path) -> str | None:
    """The title in the file of an example, or None if there is no such file."""
    if not file.exists():
        return None
    with safe_open(file, "pt") as opened:
        return opened.metadata()["title"]


def digest(*networks: nn.Module) -> str:
    """A hash of all weights of some networks."""
    found = hashlib.sha256()
    for network in networks:
        for value in network.state_dict().values():
            found.update(value.cpu().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]
