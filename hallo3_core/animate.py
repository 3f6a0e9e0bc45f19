"""The whole job: an Identity and a Speech become a video, one segment after the other."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from .config import (
    AUDIO_LAYERS,
    AUDIO_WINDOW,
    LATENT_FRAMES,
    MOTION_FRAMES,
    NEW_FRAMES,
    SEGMENT_FRAMES,
)
from .errors import InputError
from .model import Hallo3
from .noise import Noise
from .portrait import Identity
from .sampling import (
    ALWAYS,
    SAMPLERS,
    Interval,
    Schedule,
    guided,
    guided_at_once,
    sample,
)
from .segments import fade_in, motion_latents, segment_windows
from .speech import Speech
from .transformer import Conditions
from .vae import MOST_TILES, TILE_UNITS, decode

FIRST_CHUNK = (3, 9)
"""Latent frames that are decoded first, and the frames that they become."""

logger = logging.getLogger(__name__)

STEPS = 50
GUIDANCE = 3.5
SAMPLER = "sde-dpm++2m"


@dataclass(frozen=True)
class Segment:
    """One finished piece of the video.

    `latents` (1, 16, 13, height / 8, width / 8), float32; `frames` (frames, height, width, 3) in
    [0, 1], the new ones, without the canvas around the picture; `repeated` (height, width, 3), the
    frame before them.
    """

    index: int
    latents: Tensor
    frames: Tensor
    repeated: Tensor


class NotDecoded(InputError):
    """The device has not the memory to decode a segment, whose `latents` are here."""

    def __init__(self, index: int, latents: Tensor):
        super().__init__(
            f"There is not enough memory to decode segment {index}: close other programs, or use "
            "--device cpu."
        )
        self.index, self.latents = index, latents


@torch.no_grad()
def animate(
    model: Hallo3,
    identity: Identity,
    speech: Speech,
    noise: Noise,
    *,
    text: Tensor | None = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    interval: Interval = ALWAYS,
    sampler: str = SAMPLER,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[Segment]:
    """Yield the segments of the video as they are ready.

    `text` (1, tokens, width) is the encoded prompt, or none; `on_step` is called after every
    sampling step; `interval` is the part of the steps that is guided. What is constant over the
    video or over a segment is computed once for it.
    Segment i draws from the streams `initial` i, `steps` i and, but for the first, `motion` i.
    """
    config, denoiser = model.config, model.denoiser
    options = {"device": model.device, "dtype": model.dtype}
    schedule = Schedule.published(steps)
    latents_shape = (
        1,
        config.latent_channels,
        LATENT_FRAMES,
        config.latent_height,
        config.latent_width,
    )

    no_text = torch.zeros(1, config.text_tokens, config.text_width, **options)
    text = no_text if text is None else text.to(**options)
    silence = torch.zeros(
        1, SEGMENT_FRAMES, AUDIO_WINDOW, AUDIO_LAYERS, config.audio_channels, **options
    )
    with model.working(model.audio_projector):
        no_tokens = model.audio_projector(silence)
    with model.working(denoiser):
        no_audio = denoiser.audio_keys_values(no_tokens)
        face = denoiser.face_keys_values(identity.face.to(**options))
        reference = denoiser.reference_keys_values([f.to(**options) for f in identity.features])

    motion = identity.motion
    for index in range(speech.segments):
        windows = segment_windows(speech.features, index).to(**options)
        with model.working(model.audio_projector):
            tokens = model.audio_projector(windows)
        motion = motion.to(**options)
        initial = noise.stream("initial", index).normal(*latents_shape).to(model.device)
        draw = partial(noise.stream("steps", index).normal, *latents_shape)
        with model.working(denoiser):
            audio = denoiser.audio_keys_values(tokens)
            without = Conditions(no_text, motion, reference, face, no_audio)
            given = Conditions(text, motion, reference, face, audio)
            if model.rows == 2 and guidance != 1 and interval == ALWAYS:
                predict = guided_at_once(partial(predict_v, model, without + given), guidance)
            else:
                predict = guided(
                    partial(predict_v, model, without),
                    partial(predict_v, model, given),
                    guidance,
                    interval,
                )
            for estimate in sample(predict, initial, schedule, SAMPLERS[sampler], draw):
                latents = estimate
                on_step()

        if not latents.isfinite().all():
            raise InputError(
                f"Segment {index} came out as no numbers in {model.dtype}: use bfloat16 or float32."
            )
        new = min(speech.frames - index * NEW_FRAMES, NEW_FRAMES)
        try:
            with model.working(model.vae):
                frames = decode_images(model.vae, latents, MOTION_FRAMES + new, model.tiles)
        except torch.OutOfMemoryError as error:
            raise NotDecoded(index, latents) from error
        shown = frames[:, *identity.place]
        yield Segment(index, latents, shown[MOTION_FRAMES:], shown[MOTION_FRAMES - 1])

        if index + 1 < speech.segments:
            last_frames = frames[-MOTION_FRAMES:].permute(3, 0, 1, 2)[None] * 2 - 1
            draws = noise.stream("motion", index + 1)
            with model.working(model.vae):
                motion = motion_latents(model.vae, identity.portrait, last_frames, draws)


def without_seams(segments: Iterable[Segment]) -> Iterator[Segment]:
    """The same segments, each fading from what the one before ended with."""
    last = None
    for segment in segments:
        if last is not None:
            frames = fade_in(segment.frames, segment.repeated, last)
            segment = replace(segment, frames=frames)
        last = segment.frames[-1]
        yield segment


def predict_v(model: Hallo3, conditions: Conditions, x: Tensor, timestep: Tensor) -> Tensor:
    """The denoiser's prediction for latents and a scalar timestep, float32 to float32."""
    timesteps = timestep.to(model.device).expand(len(x))
    return model.denoiser(x.to(model.dtype), timesteps, conditions).float()


@torch.no_grad()
def seconds_to_decode(decode: Callable[[Tensor, int], Tensor], identity: Identity) -> float:
    """What decoding a segment will take, from decoding the beginning of one.

    `decode` gives the first images, so many, of latents on the CPU.
    """
    latent_frames, frames = FIRST_CHUNK
    start = time.perf_counter()
    decode(identity.motion[:, :, :latent_frames], frames).cpu()
    return (time.perf_counter() - start) * SEGMENT_FRAMES / frames


def decode_images(
    vae: AutoencoderKLCogVideoX, latents: Tensor, count: int, tiles: int = 1
) -> Tensor:
    """The first frames of `latents`, on any device, as (count, height, width, 3) in [0, 1].

    If the device has not the memory, in more and smaller tiles than asked for.
    """
    side, latents = min(latents.shape[-2:]), latents.to(vae.device)
    while True:
        try:
            return _decode_images(vae, latents, count, tiles)
        except torch.OutOfMemoryError:
            tiles += 1
            if tiles > min(MOST_TILES, side // TILE_UNITS):
                raise
            logger.warning("Decoding ran out of memory: again in %d x %d tiles.", tiles, tiles)


def _decode_images(vae: AutoencoderKLCogVideoX, latents: Tensor, count: int, tiles: int) -> Tensor:
    chunks, decoded = [], 0
    for pixels in decode(vae, latents, tiles):
        chunks.append((pixels[0].permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1))
        decoded += len(chunks[-1])
        if decoded >= count:
            break
    return torch.cat(chunks)[:count]
