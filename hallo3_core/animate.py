"""The whole job: make a video from an Identity and a Speech, with the networks of a Hallo3."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from .autoencoder.images import decode_images, encode_images
from .autoencoder.motion import fill_segment, motion_after
from .clip.segments import Segment, make_segments
from .errors import InputError, NotEnoughMemory
from .memory.device import enough_memory
from .model.hallo3 import Hallo3
from .network.config import AUDIO_LAYERS, AUDIO_WINDOW, SEGMENT_FRAMES
from .network.layers import Context
from .network.transformer import Conditions
from .noise import Noise, SeededNoise
from .portrait.anchor import anchored
from .portrait.encode import Identity
from .prompts import held
from .sampling.guidance import ALWAYS, Predict, guided, guided_apart, guided_at_once
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


class Constants(NamedTuple):
    """What is the same for all segments of a video.

    No text (1, tokens, width), the audio tokens of silence (1, 13, tokens, width), and the keys
    and values of the reference and of the face, as they rest between segments.
    """

    no_text: Tensor
    null_audio: Tensor
    reference: list[Context]
    face: list[Context]


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
    def constants(self) -> "Constants":
        model, config = self.model, self.model.config
        no_text = torch.zeros(1, config.text_tokens, config.text_width)
        silence = torch.zeros(1, SEGMENT_FRAMES, AUDIO_WINDOW, AUDIO_LAYERS, config.audio_channels)
        with model.working(model.audio_projector):
            null_audio = model.audio_projector(self.to_device(silence))
        strength = self.settings.identity_strength
        embeddings, weights = faces(self.speech, self.identity, config, strength)
        with model.working(model.denoiser):
            features = map(self.to_device, self.identity.features)
            reference = model.denoiser.reference_keys_values(features, strength)
            seen = self.to_device(embeddings), weights, strength
            face = model.denoiser.face_keys_values(*seen)
            rest = model.placement.rest
            return Constants(self.to_device(no_text), null_audio, rest(reference), rest(face))

    def to_device(self, tensor: Tensor) -> Tensor:
        """A tensor on the model's device, in its dtype."""
        return tensor.to(self.model.device, self.model.dtype)

    @torch.no_grad()
    def sample(
        self, index: int, motion: Tensor, seed: int | None = None, source: Source | None = None
    ) -> Tensor:
        noise = self.noise if seed is None else SeededNoise(seed)
        with enough_memory(f"sample segment {index}", "use fp8 weights"):
            return self._sample(index, motion, noise, source)

    def _sample(self, index: int, motion: Tensor, noise: Noise, source: Source | None) -> Tensor:
        model, settings = self.model, self.settings
        constants = self.constants  # computed before the denoiser is on the device
        motion = self.to_device(fill_segment(motion))
        heard = voices(self.speech, index, self.identity, model.config, settings.speech_strength)
        with model.working(model.audio_projector):
            tokens = model.audio_projector(self.to_device(heard.windows))
        initial = noise.stream("initial", index).normal(*motion.shape).to(model.device)
        draw = partial(noise.stream("steps", index).normal, *motion.shape)
        timesteps = spaced(settings.steps, source.strength if source else 1.0)
        schedule, sampler = schedule_of(settings.sampler, timesteps), SAMPLERS[settings.sampler]
        source = source and source.to(model.device)
        with model.working(model.denoiser):
            prompt = self.prompt(index)
            predict = self._guided(constants, motion, prompt, tokens, heard.weights)
            for estimate in sample(predict, initial, schedule, sampler, draw, source):
                require_numbers(estimate, index, model.dtype)
                self.on_step()
        return estimate

    def _guided(
        self,
        constants: Constants,
        motion: Tensor,
        prompt: Tensor | None,
        tokens: Tensor,
        weights: Tensor | None,
    ) -> Predict:
        """Make the guided prediction of v for a segment, with all keys and values on the device.

        `tokens` are the audio tokens of the voices, and `weights` those of `Voices`.
        """
        model, settings = self.model, self.settings
        no_text, null_audio = constants.no_text, constants.null_audio
        text = no_text if prompt is None else self.to_device(prompt)
        reference = model.placement.bring(constants.reference)
        face = model.placement.bring(constants.face)

        def branch(text: Tensor, tokens: Tensor, weights: Tensor | None = None) -> Predict:
            known = text, motion, reference, face
            conditions = model.denoiser.conditions(*known, tokens, weights)
            return partial(predict_v, model, conditions)

        guidance, text_guidance = settings.guidances
        apart = prompt is not None and guidance != text_guidance
        alike = weights is None and settings.interval == ALWAYS and not apart
        if model.rows == 2 and guidance != 1 and alike:
            both = branch(torch.cat([no_text, text]), torch.cat([null_audio, tokens]))
            return guided_at_once(both, guidance)
        nothing, everything = branch(no_text, null_audio), branch(text, tokens, weights)
        if apart:
            scales = guidance, text_guidance, settings.interval
            return guided_apart(nothing, branch(text, null_audio), everything, *scales)
        return guided(nothing, everything, guidance, settings.interval)

    @torch.no_grad()
    def decode(self, index: int, latents: Tensor, count: int) -> Tensor:
        model = self.model
        try:
            with enough_memory(f"decode segment {index}"), model.working(model.vae):
                return decode_images(model.vae, latents, count, model.tiles)
        except NotEnoughMemory as error:
            raise NotDecoded(error, index, latents) from error

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


def predict_v(model: Hallo3, conditions: Conditions, x: Tensor, timestep: Tensor) -> Tensor:
    """Predict v for latents x and a scalar timestep with the denoiser, float32 to float32."""
    timesteps = timestep.to(model.device).expand(len(x))
    return model.denoiser(x.to(model.dtype), timesteps, conditions).float()


@torch.no_grad()
def seconds_to_decode(decode: Callable[[Tensor, int], Tensor], identity: Identity) -> float:
    """Estimate the seconds of decoding a segment, by decoding the first chunk of one.

    `decode` takes latents on the CPU and a number of frames, and returns the first frames.
    """
    latent_frames, frames = FIRST_CHUNK
    start = time.perf_counter()
    decode(identity.motion[:, :, :latent_frames], frames).cpu()
    return (time.perf_counter() - start) * SEGMENT_FRAMES / frames
