"""Process 0 makes the clip, and the other processes compute their parts of it.

The samplers, the store and all inputs are only in process 0. It announces three kinds of work: what
is the same for the whole video, a segment with the latents of each of its steps, and latents to
decode.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..animate import ModelAnimator
from ..autoencoder.images import decode_images
from ..errors import InputError
from ..memory.device import enough_memory
from ..model.hallo3 import Hallo3
from ..network.layers import KeyValue
from ..prediction import Predictor, Seen, SegmentInputs
from ..sampling.guidance import Predict
from ..settings import Settings
from .branches import Dealt, guidance_groups
from .chunks import OneRanOut
from .team import Team
from .tokens import Ulysses
from .wire import announce, largest, lost

NO_MODEL = [-2, 1, 1]
"""What a process says in `agreed` that has no model."""

DECODING = "decode on several cards", "start again on one card"
"""What needs memory on all cards, and what helps if there is too little."""


class Video(NamedTuple):
    """What is the same for all segments. The branches of guidance are on `groups` of cards."""

    settings: Settings
    seen: Seen
    groups: int


class Decoding(NamedTuple):
    """Decode the first `frames` frames of latents."""

    latents: Tensor
    frames: int


class PartPredictor(Predictor):
    """The part of the guided predictions that this card computes. All cards get the whole."""

    def __init__(self, team: Team, model: Hallo3, video: Video):
        same_tokens, same_branch = team.arrange(video.groups)
        self.tokens = Ulysses(model.config, same_branch)
        super().__init__(
            replace(model, rows=1 if video.groups > 1 else model.rows),
            video.settings,
            video.seen._replace(weights=self.tokens.stripe(video.seen.weights)),
            partial(self.tokens, model.denoiser),
            Dealt(same_tokens),
        )

    def reference_keys_values(self, strength: float) -> list[KeyValue]:
        return [self.tokens.own_heads(pair) for pair in super().reference_keys_values(strength)]

    @contextmanager
    def segment(self, inputs: SegmentInputs) -> Iterator[Predict]:
        voices = inputs.voices
        part = replace(voices, weights=self.tokens.stripe(voices.weights))
        with super().segment(inputs._replace(voices=part)) as predict:
            yield predict


class LeadingPredictor(PartPredictor):
    """Tells the other cards of each segment and of each step before it computes its own part."""

    @contextmanager
    def segment(self, inputs: SegmentInputs) -> Iterator[Predict]:
        announce(inputs)
        with super().segment(inputs) as predict:

            def told(x: Tensor, timestep: Tensor) -> Tensor:
                announce((x.cpu(), timestep.cpu()))
                return predict(x, timestep)

            yield told
        announce()  # no more steps


class LeadingAnimator(ModelAnimator):
    """Makes segments with the cards of a team. The arguments are those of `ModelAnimator`.

    `split` says whether the branches of guidance are on cards of their own; see `guidance_groups`.
    """

    def __init__(self, team: Team, split: bool | None, model: Hallo3, *args, **options):
        super().__init__(agreed(model), *args, **options)
        self.team = team
        heads = model.config.heads
        self.groups = guidance_groups(team.size, heads, self.settings, split)

    @cached_property
    def predictor(self) -> Predictor:
        video = Video(self.settings, self.seen(), self.groups)
        announce(video)
        return LeadingPredictor(self.team, self.model, video)

    def decode_images(self, latents: Tensor, count: int) -> Tensor:
        announce(Decoding(latents.cpu(), count))
        with enough_memory(*DECODING):
            return decode_part(self.team, self.model, latents, count)


def agreed(model: Hallo3) -> Hallo3:
    """The model with a batch size and tiles for which all cards have enough memory.

    Raises `CardLost` if another process has no model.
    """
    rows, tiles, failed = largest([-model.rows, model.tiles, 0])
    if failed:
        raise lost()
    return replace(model, rows=-rows, tiles=tiles)


def decode_part(team: Team, model: Hallo3, latents: Tensor, count: int) -> Tensor:
    """Decode on all cards. If one of them runs out of memory, all try smaller tiles."""
    return decode_images(model.vae, latents, count, model.tiles, team.relay, OneRanOut)


@torch.no_grad()
def follow(team: Team, load: Callable[[], Hallo3]) -> None:
    """Compute what process 0 announces, until it has finished.

    `load` returns the model. If it raises `InputError` and process 0 does, too, raises `CardLost`:
    process 0 says it for both. If no tiles are small enough for all cards, process 0 says it, too.
    """
    try:
        model = load()
    except InputError:
        largest(NO_MODEL)
        raise
    model = agreed(model)
    while (work := announce()) is not None:
        if isinstance(work, Video):
            predictor = PartPredictor(team, model, work)
        elif isinstance(work, Decoding):
            with enough_memory(*DECODING), model.working(model.vae), suppress(OneRanOut):
                decode_part(team, model, *work)
        else:
            with predictor.segment(work) as predict:
                while (step := announce()) is not None:
                    predict(*(part.to(model.device) for part in step))


def dismiss() -> None:
    """Tell the other processes that the clip is finished."""
    announce()
