"""Measures the built-in model on the test split: lips, likeness, guidance, seams.

Each case animates the same unseen people with the same unseen speech, and changes one setting.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from hallo3_core import builtin
from hallo3_core.animate import animate
from hallo3_core.autoencoder.images import decode_images
from hallo3_core.autoencoder.vae import LATENT_SCALE
from hallo3_core.evaluation.reader import drawn_reader
from hallo3_core.evaluation.report import seams
from hallo3_core.evaluation.sync import best_lag, correlation
from hallo3_core.evaluation.tracks import Tracks, track
from hallo3_core.media.picture import to_uint8
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.config import FPS, MOTION_FRAMES, NEW_FRAMES, SEGMENT_FRAMES
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import Identity, encode_portrait
from hallo3_core.portrait.face_mask import box_region
from hallo3_core.settings import Settings, distilled
from hallo3_core.speech.encode import encode_speech

from .measured import (
    DRAWN,
    clip_file,
    frames_of,
    heading,
    keep,
    line,
    middle,
    tracks_of,
)
from .pool import to_pixels
from .world.clips import Clip as DrawnClip
from .world.clips import clip_with, motion_of, person_of, speech_of
from .world.drawing import Frame, draw
from .world.motion import still
from .world.speech import Utterance, silence
from .world.visemes import mouth_of, still_mouth

CLIPS = 20
SEGMENTS = 2
FRAMES = SEGMENTS * NEW_FRAMES
OTHER = 1000
"""Added to the number of a person to get another person."""
NOISES = 0.1, 0.3
"""Standard deviations of noise on the latents of drawings, before they are decoded."""

Video = Callable[[int, Utterance], Iterable[np.ndarray]]
"""Takes the number of a clip and its speech. Gives its frames, (height, width, 3) uint8."""


@dataclass(frozen=True)
class Case:
    """One way to animate a clip: where it differs from the published settings."""

    steps: int = Settings.steps
    sampler: str = Settings.sampler
    guidance: float = Settings.guidance
    colour_anchor: float = Settings.colour_anchor
    speech_strength: float = Settings.speech_strength
    speaks: bool = True
    referenced: bool = True
    person: int = 0


CASES = {
    "published": Case(),
    "10 steps": Case(steps=10, sampler="dpm++2m"),
    "guidance 1": Case(guidance=1),
    "guidance 6": Case(guidance=6),
    "silence": Case(speaks=False),
    "no reference": Case(referenced=False),
    "other portrait": Case(person=OTHER),
}
FEW = Case(**distilled(builtin.STEPS))
FEW_CASES = {
    "4 steps": FEW,
    "4 steps, speech strength 1.25": replace(FEW, speech_strength=1.25),
    "4 steps, silence": replace(FEW, speaks=False),
    "4 steps, no reference": replace(FEW, referenced=False),
    "4 steps, other portrait": replace(FEW, person=OTHER),
}
"""The cases of the distilled model; `CASES` are those of the model before distillation."""


def talks(frames: int = FRAMES) -> Iterator[tuple[int, Utterance]]:
    """Numbers and speech of the clips of the test split in which somebody talks."""
    for index in count():
        speech = speech_of("test", index, frames)
        if speech.phonemes:
            yield index, speech


def portrait(person: int, side: int) -> Frame:
    """A person who looks ahead with closed mouth."""
    return draw(person_of("test", person), still(1)[0], still_mouth(), (side, side))


def identity_of(model: Hallo3, frame: Frame, noise: SeededNoise) -> Identity:
    picture = torch.tensor(frame.picture).movedim(-1, 0) / 255
    region = box_region(frame.geometry.face_box.tolist(), picture.shape[1:])
    return encode_portrait(model.vae, model.reference_network, picture, region, noise)


def animated(model: Hallo3, case: Case, index: int, speech: Utterance) -> Iterator[np.ndarray]:
    """The frames that the model makes from a still portrait."""
    noise = SeededNoise(index)
    identity = identity_of(model, portrait(index + case.person, model.config.canvas[0]), noise)
    if not case.referenced:
        nothing = [torch.zeros_like(tokens) for tokens in identity.features]
        identity = replace(identity, features=nothing)
    waveform = speech.waveform if case.speaks else silence(FRAMES / FPS).waveform
    heard = encode_speech(model.speech_encoder, torch.from_numpy(waveform))
    settings = ("steps", "guidance", "sampler", "colour_anchor", "speech_strength")
    options = {name: getattr(case, name) for name in settings}
    for segment in animate(model, identity, heard, noise, **options):
        yield from to_bytes(segment.frames)


def true_clip(side: int, index: int, speech: Utterance) -> DrawnClip:
    motion = motion_of("test", index, speech, FRAMES)
    return clip_with(person_of("test", index), speech, motion, (side, side))


def drawn(side: int, index: int, speech: Utterance) -> np.ndarray:
    """The true frames."""
    return true_clip(side, index, speech).frames


@torch.no_grad()
def reconstructed(
    model: Hallo3, noise: float, index: int, speech: Utterance
) -> Iterator[np.ndarray]:
    """The true frames, encoded and decoded: the best that the denoiser can reach.

    The latents get noise of the standard deviation `noise`.
    """
    frames = drawn(model.config.canvas[0], index, speech)
    generator = torch.Generator().manual_seed(index)
    frames = np.concatenate([frames[:1]] * MOTION_FRAMES + [frames])
    for start in range(0, FRAMES, NEW_FRAMES):
        part = to_pixels(frames[None, start : start + SEGMENT_FRAMES]).to(model.device)
        latents = LATENT_SCALE * model.vae.encode(part).latent_dist.mean
        latents += noise * torch.randn(latents.shape, generator=generator).to(latents)
        yield from to_bytes(decode_images(model.vae, latents, SEGMENT_FRAMES)[MOTION_FRAMES:])


def noisy(noise: float) -> str:
    return f"autoencoder, noise {noise}"


def to_bytes(frames: Tensor) -> np.ndarray:
    return to_uint8(frames).cpu().numpy()


def videos(model: Hallo3, cases: dict[str, Case]) -> dict[str, Video]:
    """All videos that are measured, by name."""
    side = model.config.canvas[0]
    return {
        DRAWN: partial(drawn, side),
        "autoencoder": partial(reconstructed, model, 0),
        **{noisy(noise): partial(reconstructed, model, noise) for noise in NOISES},
        **{name: partial(animated, model, case) for name, case in cases.items()},
    }


@dataclass(frozen=True)
class Clip:
    """The measures of one video, and `truth` (frames,), how far the mouth should open."""

    tracks: Tracks
    truth: np.ndarray

    @cached_property
    def sync(self) -> float:
        return correlation(self.tracks.opening, self.truth)

    @cached_property
    def lag(self) -> int:
        return best_lag(self.tracks.opening, self.truth)[1]


def measure(
    name: str, video: Video, side: int, folder: Path, clips: int, device: torch.device
) -> list[Clip]:
    """Measure the first clips of a case. Clips that are in `folder` already are not made again."""
    reader, done = drawn_reader(device), []
    person = getattr((CASES | FEW_CASES).get(name), "person", 0)

    def made(index: int, speech: Utterance) -> dict[str, np.ndarray]:
        frames = np.stack(list(video(index, speech)))
        likeness = portrait(index + person, side).picture
        return {"frames": frames, **vars(track(reader, frames, likeness, device=device))}

    for index, speech in islice(talks(), clips):
        file = clip_file(folder, name, index)
        keep(file, partial(made, index, speech))
        done.append(Clip(tracks_of(file), mouth_of(speech, FRAMES).opening))
    return done


def swapped(clips: list[Clip]) -> list[float]:
    """For each clip, the correlation of its mouth with the speech of the next clip."""
    others = clips[1:] + clips[:1]
    return [
        correlation(clip.tracks.opening, other.truth)
        for clip, other in zip(clips, others, strict=True)
    ]


def row(name: str, clips: list[Clip]) -> str:
    """A row of the table: medians over the clips."""
    return line(
        name,
        f"{middle(clip.sync for clip in clips):.3f}",
        f"{min(clip.sync for clip in clips):.2f}",
        f"{middle(clip.lag for clip in clips):+.0f}",
        f"{middle(swapped(clips)):.3f}",
        f"{middle(clip.tracks.opening.mean() for clip in clips):.4f}",
        f"{middle(clip.tracks.distance.mean() for clip in clips):.4f}",
        f"{middle(seams(clip.tracks.jump) for clip in clips):.2f}",
        f"{middle(np.nanmean(clip.tracks.sharpness) for clip in clips):.3f}",
        f"{middle(np.nanmean(clip.tracks.flicker) for clip in clips):.2f}",
    )


def reconstruction(folder: Path, side: int, clips: int) -> tuple[float, float]:
    """PSNR of the autoencoder in dB: its frames against the drawings, medians over the clips.

    Of whole frames, and of their mouths.
    """
    whole, mouths = [], []
    for index, speech in islice(talks(), clips):
        pair = [frames_of(clip_file(folder, name, index)) for name in (DRAWN, "autoencoder")]
        whole.append(peak_signal_noise_ratio(*pair))
        boxes = true_clip(side, index, speech).geometry.mouth_box.round().astype(int)
        cut = [np.concatenate([mouth_in(*row) for row in zip(f, boxes, strict=True)]) for f in pair]
        mouths.append(peak_signal_noise_ratio(*cut))
    return middle(whole), middle(mouths)


def mouth_in(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The pixels (count, 3) of the mouth in a frame."""
    left, top, right, bottom = box.clip(0)
    return frame[top:bottom, left:right].reshape(-1, 3)


def report(
    model: Hallo3, folder: Path, cases: dict[str, Case], clips: int = CLIPS
) -> Iterator[str]:
    """The lines of the table, each as soon as it is ready, and the autoencoder's PSNR."""
    measures = ("r of the mouth", "lowest r", "lag", "swapped", "mean opening", "identity", "seams")
    yield from heading("case", *measures, "sharpness", "flicker")
    side = model.config.canvas[0]
    for name, video in videos(model, cases).items():
        yield row(name, measure(name, video, side, folder, clips, model.device))
    yield ""
    whole, mouths = reconstruction(folder, side, clips)
    yield f"PSNR of the autoencoder: {whole:.1f} dB, of mouths {mouths:.1f} dB"
