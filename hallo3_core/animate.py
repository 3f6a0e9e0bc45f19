"""The whole job: make a video from an Identity and a Speech, with the networks of a Hallo3."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from functools import cached_property, partial

import torch
from torch import Tensor

from .autoencoder.images import decode_images, encode_images
from .autoencoder.motion import fill_segment, motion_after
from .clip.segments import Segment, make_segments
from .errors import InputError, NotEnoughMemory
from .memory.device import enough_memory
from .model.hallo3 import Hallo3
from .network.config import SEGMENT_FRAMES
from .noise import Noise, SeededNoise
from .portrait.anchor import anchored
from .portrait.encode import Identity
from .prediction import Predictor, Seen, SegmentInputs
from .prompts import held
from .sampling.inpainting import Source
from .sampling.samplers import SAMPLERS, sample, schedule_of
from .sampling.schedule import spaced
from .settings import Settings
from .speech.dialogue import Dialogue, faces, voices
from .speech.encode import Speech

FIRST_CHUNK = (3, 9)
"""Number of latent frames in the first decoded chunk, and number of frames that they become."""


class NotDecoded(NotEnoughMemory):
    """The device does not have enough memory to decode a segment. Its `latents` are kept here."""

    def __init__(self, reason: NotEnoughMemory, index: int, latents: Tensor):
        super().__init__(*reason.args)
        self.index, self.latents = index, latents


class ModelAnimator:
    """Makes segments with the networks of a `Hallo3`.

    `text` (1, tokens, text width) is the encoded prompt, or None. For several prompts it is pairs
    of the second from which one holds, and its text. `on_step` is called after every sampling step.
    `settings` are the fields of `Settings`. Anything that is constant over the video or over a
    segment is computed only once.

    Segment i draws from the streams `initial` i and `steps` i. Segments after the first also draw
    from `motion` i.
    """

    def __init__(
        self,
        model: Hallo3,
        identity: Identity,
        speech: Speech | Dialogue,
        noise: Noise,
        *,
        text: Tensor | Sequence[tuple[float, Tensor]] | None = None,
        on_step: Callable[[], None] = lambda: None,
        **settings,
    ):
        self.model, self.identity, self.speech, self.noise = model, identity, speech, noise
        self.prompts = [(0.0, text)] if isinstance(text, Tensor) else list(text or ())
        self.settings, self.on_step = Settings(**settings), on_step

    def decides(self) -> tuple:
        model = self.model
        networks = (model.denoiser, model.audio_projector, model.vae)
        where = (torch.__version__, model.device.type, model.dtype)
        return "hallo3_core", where, networks, self.identity, self.noise, astuple(self.settings)

    def prompt(self, index: int) -> Tensor | None:
        return held(self.prompts, index)

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.model, self.settings, self.seen())

    def seen(self) -> Seen:
        """What the denoiser sees of the person in all segments."""
        strength = self.settings.identity_strength
        known = faces(self.speech, self.identity, self.model.config, strength)
        return Seen(self.identity.features, *known)

    @torch.no_grad()
    def sample(
        self, index: int, motion: Tensor, seed: int | None = None, source: Source | None = None
    ) -> Tensor:
        noise = self.noise if seed is None else SeededNoise(seed)
        with enough_memory(f"sample segment {index}", "use quantised weights"):
            return self._sample(index, motion, noise, source)

    def _sample(self, index: int, motion: Tensor, noise: Noise, source: Source | None) -> Tensor:
        model, settings = self.model, self.settings
        motion = fill_segment(motion)
        heard = voices(self.speech, index, self.identity, model.config, settings.speech_strength)
        initial = noise.stream("initial", index).normal(*motion.shape).to(model.device)
        draw = partial(noise.stream("steps", index).normal, *motion.shape)
        timesteps = spaced(settings.steps, source.strength if source else 1.0)
        schedule, sampler = schedule_of(settings.sampler, timesteps), SAMPLERS[settings.sampler]
        source = source and source.to(model.device)
        with self.predictor.segment(SegmentInputs(motion, self.prompt(index), heard)) as predict:
            for estimate in sample(predict, initial, schedule, sampler, draw, source):
                require_numbers(estimate, index, model.dtype)
                self.on_step()
        return estimate

    @torch.no_grad()
    def decode(self, index: int, latents: Tensor, count: int) -> Tensor:
        model = self.model
        try:
            with enough_memory(f"decode segment {index}"), model.working(model.vae):
                return self.decode_images(latents, count)
        except NotEnoughMemory as error:
            raise NotDecoded(error, index, latents) from error

    def decode_images(self, latents: Tensor, count: int) -> Tensor:
        """Decode the first `count` frames, with the autoencoder on the device. See `decode`."""
        return decode_images(self.model.vae, latents, count, self.model.tiles)

    @torch.no_grad()
    def encode(self, index: int, frames: Tensor) -> Tensor:
        model, draws = self.model, self.noise.stream("source", index)
        with enough_memory(f"encode segment {index}"), model.working(model.vae):
            return encode_images(model.vae, frames, draws, model.tiles)

    @torch.no_grad()
    def extend(self, index: int, frames: Tensor) -> Tensor:
        model, draws = self.model, self.noise.stream("motion", index)
        frames = anchored(frames, self.identity, self.settings.colour_anchor)
        with enough_memory(f"continue with segment {index}"), model.working(model.vae):
            return motion_after(model.vae, self.identity.portrait, frames, draws)

    def shown(self, frames: Tensor) -> Tensor:
        return frames


def animate(
    model: Hallo3,
    identity: Identity,
    speech: Speech | Dialogue,
    noise: Noise,
    *,
    fade: bool = True,
    **options,
) -> Iterator[Segment]:
    """Yield the segments of the video as they are ready.

    `options` are those of `ModelAnimator`. See `make_segments`.
    """
    animator = ModelAnimator(model, identity, speech, noise, **options)
    return make_segments(animator, identity, speech, fade=fade)


def require_numbers(estimate: Tensor, index: int, dtype: torch.dtype) -> None:
    """Raise `InputError` if a denoised estimate has values that are NaN or infinite.

    The check after every step saves the time of the other steps.
    """
    if not estimate.isfinite().all():
        raise InputError(
            f"Segment {index} has values that are NaN or infinite in {dtype}: use bfloat16 or "
            "float32, or a weaker LoRA."
        )


@torch.no_grad()
def seconds_to_decode(decode: Callable[[Tensor, int], Tensor], identity: Identity) -> float:
    """Estimate the seconds of decoding a segment, by decoding the first chunk of one.

    `decode` takes latents on the CPU and a number of frames, and returns the first frames.
    """
    latent_frames, frames = FIRST_CHUNK
    start = time.perf_counter()
    decode(identity.motion[:, :, :latent_frames], frames).cpu()
    return (time.perf_counter() - start) * SEGMENT_FRAMES / frames
