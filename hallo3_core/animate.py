"""The whole job: an Identity and a Speech become a video, one segment after the other."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from functools import cached_property, partial
from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from .autoencoder.motion import motion_latents
from .autoencoder.vae import MOST_TILES, TILE_UNITS, decode
from .errors import InputError, NotEnoughMemory
from .media.video import encode_pictures
from .memory.device import enough_memory
from .model.hallo3 import Hallo3
from .network.config import AUDIO_LAYERS, AUDIO_WINDOW, LATENT_FRAMES, MOTION_FRAMES, SEGMENT_FRAMES
from .network.layers import KeyValue
from .network.transformer import Conditions
from .noise import Noise
from .portrait.encode import Identity
from .sampling.fade import fade_in
from .sampling.guidance import ALWAYS, Predict, guided, guided_at_once
from .sampling.samplers import SAMPLERS, sample
from .sampling.schedule import Schedule
from .settings import Settings
from .speech.encode import Speech
from .speech.windows import segment_windows
from .store.segment_store import NOTHING_KEPT, ClipStore, FinishedSegment

FIRST_CHUNK = (3, 9)
"""Latent frames that are decoded first, and the frames that they become."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segment:
    """One piece of the video.

    `latents` (1, 16, 13, height / 8, width / 8), float32; `frames` (frames, height, width, 3) in
    [0, 1], the new ones, without the canvas around the picture, or None if they come from the
    store and were not asked for; `finished`, what the store has of it, or None.
    """

    index: int
    latents: Tensor
    frames: Tensor | None
    finished: FinishedSegment | None = None

    @cached_property
    def piece(self) -> bytes:
        """The new frames as H.264 in an MP4."""
        if self.finished:
            return self.finished.piece.numpy().tobytes()
        return encode_pictures(self.frames)


class Animator(Protocol):
    """Makes the segments of one clip, wherever its networks are."""

    def sample(self, index: int, motion: Tensor) -> Tensor:
        """Latents of a segment (1, 16, 13, height / 8, width / 8) that continues `motion`."""

    def decode(self, index: int, latents: Tensor, count: int) -> Tensor:
        """The first `count` frames of a segment on the canvas, (count, height, width, 3)."""

    def extend(self, index: int, frames: Tensor) -> Tensor:
        """Motion latents for segment `index`, which continues the two `frames` of the canvas."""


def make_segments(
    animator: Animator,
    identity: Identity,
    speech: Speech,
    kept: ClipStore = NOTHING_KEPT,
    *,
    fade: bool = True,
    frames: bool = True,
) -> Iterator[Segment]:
    """Yield the segments of a clip as they are ready; those that are `kept` are not made again.

    Each fades from the end of the one before; the published program cuts (`fade` is False).
    Without `frames` a segment that was kept has only its piece of the video.
    """
    motion, last, name = identity.motion, None, ""
    for index in range(speech.segments):
        name = kept.name(index, name)
        found = kept.segment(name)
        latents = found.latents if found else kept.latents(name)
        if latents is None:
            latents = animator.sample(index, motion)
            kept.put_latents(name, latents)
        new = None
        if frames or not found:
            canvas = animator.decode(index, latents, MOTION_FRAMES + speech.new_frames(index))
            repeated, new = canvas[:, *identity.place].tensor_split([MOTION_FRAMES])
            if fade and last is not None:
                new = fade_in(new, repeated[-1], last.to(new))
        if found:
            motion, last = found.motion, found.last
        else:
            last = new[-1]
            if index + 1 < speech.segments:
                try:
                    motion = animator.extend(index + 1, canvas[-MOTION_FRAMES:])
                except NotEnoughMemory:
                    yield Segment(index, latents, new)  # what is done is not lost
                    raise
        segment = Segment(index, latents, new, found)
        if not found and kept.usable:
            piece = torch.frombuffer(bytearray(segment.piece), dtype=torch.uint8)
            kept.put_segment(name, FinishedSegment(latents, motion[:, :, :1], last, piece))
        yield segment


class NotDecoded(NotEnoughMemory):
    """The device has not the memory to decode a segment, whose `latents` are here."""

    def __init__(self, reason: NotEnoughMemory, index: int, latents: Tensor):
        super().__init__(*reason.args)
        self.index, self.latents = index, latents


class ModelAnimator:
    """Makes segments with the networks of a `Hallo3`.

    `text` (1, tokens, width) is the encoded prompt, or none; `on_step` is called after every
    sampling step; `settings` are those of `Settings`. What is constant over the video or over a
    segment is computed once for it.
    Segment i draws from the streams `initial` i, `steps` i and, but for the first, `motion` i.
    """

    def __init__(
        self,
        model: Hallo3,
        identity: Identity,
        speech: Speech,
        noise: Noise,
        *,
        text: Tensor | None = None,
        on_step: Callable[[], None] = lambda: None,
        **settings,
    ):
        self.model, self.identity, self.speech, self.noise = model, identity, speech, noise
        self.text, self.settings, self.on_step = text, Settings(**settings), on_step
        self.schedule = Schedule.published(self.settings.steps)
        self.options = {"device": model.device, "dtype": model.dtype}

    def decides(self) -> tuple:
        """All that decides the segments of the clip, but the speech."""
        model = self.model
        networks = (model.denoiser, model.audio_projector, model.vae)
        where = (torch.__version__, model.device.type, model.dtype)
        settings = self.text, astuple(self.settings)
        return "hallo3_core", where, networks, self.identity, self.noise, settings

    @cached_property
    def constants(self) -> tuple[Tensor, Tensor, list[KeyValue], list[KeyValue]]:
        """No text, tokens of silence, and the keys and values of the reference and the face."""
        model, config = self.model, self.model.config
        no_text = torch.zeros(1, config.text_tokens, config.text_width, **self.options)
        silence = torch.zeros(
            1, SEGMENT_FRAMES, AUDIO_WINDOW, AUDIO_LAYERS, config.audio_channels, **self.options
        )
        with model.working(model.audio_projector):
            no_tokens = model.audio_projector(silence)
        with model.working(model.denoiser):
            features = (tokens.to(**self.options) for tokens in self.identity.features)
            reference = model.denoiser.reference_keys_values(features)
            face = model.denoiser.face_keys_values(self.identity.face.to(**self.options))
            return no_text, no_tokens, model.placement.rest(reference), model.placement.rest(face)

    @torch.no_grad()
    def sample(self, index: int, motion: Tensor) -> Tensor:
        with enough_memory(f"sample segment {index}", "use fp8 weights"):
            return self._sample(index, motion)

    def _sample(self, index: int, motion: Tensor) -> Tensor:
        model = self.model
        constants = self.constants  # made before the denoiser works
        motion = F.pad(motion, (0, 0, 0, 0, 0, LATENT_FRAMES - motion.shape[2]))
        motion = motion.to(**self.options)
        with model.working(model.audio_projector):
            heard = segment_windows(self.speech.features, index)
            tokens = model.audio_projector(heard.to(**self.options))
        initial = self.noise.stream("initial", index).normal(*motion.shape).to(model.device)
        draw = partial(self.noise.stream("steps", index).normal, *motion.shape)
        with model.working(model.denoiser):
            predict = self._guided(constants, motion, tokens)
            for estimate in sample(
                predict, initial, self.schedule, SAMPLERS[self.settings.sampler], draw
            ):
                require_numbers(estimate, index, model.dtype)
                self.on_step()
        return estimate

    def _guided(self, constants: tuple, motion: Tensor, tokens: Tensor) -> Predict:
        """The prediction to sample a segment with, which has all keys and values on the device."""
        model = self.model
        no_text, no_tokens, *resting = constants
        text = no_text if self.text is None else self.text.to(**self.options)
        shared = motion, *map(model.placement.bring, resting)

        def branch(text: Tensor, tokens: Tensor) -> Predict:
            return partial(predict_v, model, model.denoiser.conditions(text, *shared, tokens))

        guidance, interval = self.settings.guidance, self.settings.interval
        if model.rows == 2 and guidance != 1 and interval == ALWAYS:
            both = branch(torch.cat([no_text, text]), torch.cat([no_tokens, tokens]))
            return guided_at_once(both, guidance)
        branches = branch(no_text, no_tokens), branch(text, tokens)
        return guided(*branches, guidance, interval)

    @torch.no_grad()
    def decode(self, index: int, latents: Tensor, count: int) -> Tensor:
        model = self.model
        try:
            with enough_memory(f"decode segment {index}"), model.working(model.vae):
                return decode_images(model.vae, latents, count, model.tiles)
        except NotEnoughMemory as error:
            raise NotDecoded(error, index, latents) from error

    @torch.no_grad()
    def extend(self, index: int, frames: Tensor) -> Tensor:
        model, draws = self.model, self.noise.stream("motion", index)
        with enough_memory(f"continue with segment {index}"), model.working(model.vae):
            pixels = frames.permute(3, 0, 1, 2)[None] * 2 - 1
            return motion_latents(model.vae, self.identity.portrait, pixels, draws)


def animate(
    model: Hallo3, identity: Identity, speech: Speech, noise: Noise, *, fade: bool = True, **options
) -> Iterator[Segment]:
    """Yield the segments of the video as they are ready. `options` are those of `ModelAnimator`."""
    animator = ModelAnimator(model, identity, speech, noise, **options)
    return make_segments(animator, identity, speech, fade=fade)


def require_numbers(estimate: Tensor, index: int, dtype: torch.dtype) -> None:
    """Raise `InputError` if a denoised estimate has overflowed, so that no more time is lost."""
    if not estimate.isfinite().all():
        raise InputError(
            f"Segment {index} came out as no numbers in {dtype}: use bfloat16 or float32, and no "
            "LoRA that is too strong."
        )


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

    They are in main memory. If the device has not enough, in more and smaller tiles than asked for.
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
        chunks.append((pixels[0].cpu().permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1))
        decoded += len(chunks[-1])
        if decoded >= count:
            break
    return torch.cat(chunks)[:count]
