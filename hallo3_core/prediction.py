"""Guided predictions of v for the segments of a video, with the networks of a model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .model.hallo3 import Hallo3
from .network.config import AUDIO_LAYERS, AUDIO_WINDOW, SEGMENT_FRAMES
from .network.layers import Context, KeyValue
from .network.transformer import Conditions
from .sampling.guidance import (
    ALWAYS,
    Predict,
    Together,
    guided,
    guided_apart,
    guided_at_once,
    in_turn,
)
from .settings import Settings
from .speech.dialogue import Voices

Denoise = Callable[[Tensor, Tensor, Conditions], Tensor]
"""Calls a denoiser with latents (batch, 16, 13, height, width), timesteps (batch,), conditions."""


class Seen(NamedTuple):
    """What the denoiser sees of the person in all segments.

    `features` are the tokens of the reference network, (1, frame tokens, width) for every layer.
    `faces` (faces, 512) are the face embeddings. `weights` (faces, 13, image tokens) say how much
    of each face a token sees. They are None if there is one face, which all tokens see.
    """

    features: list[Tensor]
    faces: Tensor
    weights: Tensor | None


class SegmentInputs(NamedTuple):
    """The inputs of one segment.

    `motion` (1, 16, 13, height / 8, width / 8) are the motion latents, and `prompt` (1, tokens,
    text width) is the encoded prompt, or None.
    """

    motion: Tensor
    prompt: Tensor | None
    voices: Voices


class Constants(NamedTuple):
    """What is the same for all segments of a video.

    No text (1, tokens, width), the audio tokens of silence (1, 13, tokens, width), and the keys
    and values of the reference and of the face, as they rest between segments.
    """

    no_text: Tensor
    null_audio: Tensor
    reference: list[Context]
    face: list[Context]


class Predictor:
    """Makes the guided predictions for the segments of a video.

    Anything that is constant over the video or over a segment is computed only once. `denoise`
    calls the denoiser, and `together` computes the branches of guidance.
    """

    def __init__(
        self,
        model: Hallo3,
        settings: Settings,
        seen: Seen,
        denoise: Denoise | None = None,
        together: Together = in_turn,
    ):
        self.model, self.settings, self.seen = model, settings, seen
        self.denoise, self.together = denoise or model.denoiser, together

    @cached_property
    def constants(self) -> Constants:
        model, config, seen = self.model, self.model.config, self.seen
        no_text = torch.zeros(1, config.text_tokens, config.text_width)
        silence = torch.zeros(1, SEGMENT_FRAMES, AUDIO_WINDOW, AUDIO_LAYERS, config.audio_channels)
        with model.working(model.audio_projector):
            null_audio = model.audio_projector(self.to_device(silence))
        strength = self.settings.identity_strength
        with model.working(model.denoiser):
            reference = self.reference_keys_values(strength)
            face = model.denoiser.face_keys_values(
                self.to_device(seen.faces), seen.weights, strength
            )
            rest = model.placement.rest
            return Constants(self.to_device(no_text), null_audio, rest(reference), rest(face))

    def reference_keys_values(self, strength: float) -> list[KeyValue]:
        features = map(self.to_device, self.seen.features)
        return self.model.denoiser.reference_keys_values(features, strength)

    def to_device(self, tensor: Tensor) -> Tensor:
        """A tensor on the model's device, in its dtype."""
        return tensor.to(self.model.device, self.model.dtype)

    @contextmanager
    def segment(self, inputs: SegmentInputs) -> Iterator[Predict]:
        """The guided prediction of v for a segment. It can be called only inside this context."""
        model = self.model
        constants = self.constants  # computed before the denoiser is on the device
        motion = self.to_device(inputs.motion)
        with model.working(model.audio_projector):
            tokens = model.audio_projector(self.to_device(inputs.voices.windows))
        with model.working(model.denoiser):
            weights = inputs.voices.weights
            yield self._guided(constants, motion, inputs.prompt, tokens, weights)

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
            @cache  # at the first call: another card may compute this branch
            def conditions() -> Conditions:
                known = text, motion, reference, face
                return model.denoiser.conditions(*known, tokens, weights)

            return lambda x, timestep: predict_v(model, conditions(), x, timestep, self.denoise)

        guidance, text_guidance = settings.guidances
        apart = prompt is not None and guidance != text_guidance
        alike = weights is None and settings.interval == ALWAYS and not apart
        if model.rows == 2 and guidance != 1 and alike:
            both = branch(torch.cat([no_text, text]), torch.cat([null_audio, tokens]))
            return guided_at_once(both, guidance)
        nothing, everything = branch(no_text, null_audio), branch(text, tokens, weights)
        if apart:
            scales = guidance, text_guidance, settings.interval
            text_only = branch(text, null_audio)
            return guided_apart(nothing, text_only, everything, *scales, self.together)
        return guided(nothing, everything, guidance, settings.interval, self.together)


def predict_v(
    model: Hallo3,
    conditions: Conditions,
    x: Tensor,
    timestep: Tensor,
    denoise: Denoise | None = None,
) -> Tensor:
    """Predict v for latents x and a scalar timestep with the denoiser, float32 to float32."""
    timesteps = timestep.to(model.device).expand(len(x))
    return (denoise or model.denoiser)(x.to(model.dtype), timesteps, conditions).float()
