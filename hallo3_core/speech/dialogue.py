"""Who speaks in a picture of several people, where, and how strongly.

A `Dialogue` has the speech of each `Speaker`. In one segment they become `Voices`: the speech that
each image token of the denoiser hears.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..network.config import (
    AUDIO_WINDOW,
    FPS,
    LATENT_FRAMES,
    MOTION_FRAMES,
    NEW_FRAMES,
    SEGMENT_FRAMES,
    Hallo3Config,
    new_frame_count,
    segment_count,
)
from ..portrait.encode import Identity
from ..sound.sound import Sound
from .encode import Speech
from .windows import segment_windows, windows

ROUNDING = 1e-5
"""A sum of weights that is this near to 1 is 1."""


@dataclass(frozen=True)
class Speaker:
    """One who speaks.

    `region` (height, width) in [0, 1] is where this person is in the picture, or None for
    everywhere. `face` (1, 512) is the face embedding, if it is known. `start` is the video frame
    at which the speech begins.
    """

    speech: Speech
    region: Tensor | None = None
    face: Tensor | None = None
    start: int = 0

    @property
    def end(self) -> int:
        """The video frame at which the speech has ended."""
        return self.start + self.speech.frames


@dataclass(frozen=True)
class Dialogue:
    """The speech of several people in one picture. It is used as a `Speech` is.

    It is as long as until the last speaker has ended. `sound` is the mix, if all sounds are known.
    Raises `InputError` if there is no speaker.
    """

    speakers: tuple[Speaker, ...]

    def __post_init__(self):
        if not self.speakers:
            raise InputError("The dialogue has no speaker: connect at least one.")

    @property
    def frames(self) -> int:
        return max(speaker.end for speaker in self.speakers)

    @property
    def segments(self) -> int:
        return segment_count(self.frames)

    def new_frames(self, index: int) -> int:
        """The number of new frames in segment `index`."""
        return new_frame_count(self.frames, index)

    @cached_property
    def sound(self) -> Sound | None:
        """The sounds of all speakers together, each from its start."""
        parts = [(speaker.speech.sound, speaker.start) for speaker in self.speakers]
        known = [(sound, start) for sound, start in parts if sound is not None]
        return mixed(known, self.frames) if len(known) == len(parts) else None


def in_turns(speakers: tuple[Speaker, ...]) -> Dialogue:
    """A dialogue in which each speaker begins when the one before has ended."""
    placed, end = [], 0
    for speaker in speakers:
        placed.append(replace(speaker, start=end))
        end = placed[-1].end
    return Dialogue(tuple(placed))


def mixed(parts: list[tuple[Sound, int]], frames: int) -> Sound:
    """The sum of sounds, each from a video frame on. It is as long as `frames` video frames.

    It has one channel, at the highest rate of the sounds, and is at most as loud as full scale.
    """
    rate = max(sound.rate for sound, _ in parts)
    mix = torch.zeros(1, frames * rate // FPS)
    for sound, start in parts:
        first = start * rate // FPS
        part = sound.mono(rate)[: mix.shape[1] - first]
        mix[0, first : first + len(part)] += part
    peak = mix.abs().max()
    return Sound(mix / peak if peak > 1 else mix, rate)


def speakers_of(speech: Speech | Dialogue) -> tuple[Speaker, ...]:
    """The speakers of a dialogue. A plain speech has one, who is everywhere."""
    return speech.speakers if isinstance(speech, Dialogue) else (Speaker(speech),)


@dataclass(frozen=True)
class Voices:
    """What the image tokens hear in one segment.

    `windows` (voices, 49, 5, 12, channels) is the speech. `weights` (voices, 13, image tokens) add
    up to 1 for each token. They are None if there is one voice, which all tokens hear.
    """

    windows: Tensor
    weights: Tensor | None = None


def voices(
    speech: Speech | Dialogue,
    index: int,
    identity: Identity,
    config: Hallo3Config,
    strength: float = 1.0,
) -> Voices:
    """The voices of segment `index`. A token hears silence as far as it hears no speaker.

    `strength` scales the weights of the speakers: 0 is silence, and above 1 the difference from
    silence is exaggerated.
    """
    speakers = speakers_of(speech)
    regions = token_regions(speakers, identity, config)
    speaking = torch.stack([presence(speaker, index, speech.frames) for speaker in speakers])
    shares = shared(regions[:, None] * speaking[:, :, None])
    strengths = torch.stack([strength_of(speaker, index) for speaker in speakers])
    weights = strength * strengths[:, :, None] * shares
    if len(speakers) == 1 and bool((weights == 1).all()):
        return Voices(segment_of(speakers[0], index))
    heard = shares.flatten(1).any(dim=1)
    parts = [segment_of(speakers[i], index) for i in heard.nonzero().flatten().tolist()]
    rest = 1 - weights.sum(dim=0, keepdim=True)
    if bool((rest.abs() < ROUNDING).all()):
        return Voices(torch.cat(parts), weights[heard])
    silent = silence_of(speakers[0].speech).expand(1, SEGMENT_FRAMES, AUDIO_WINDOW, -1, -1)
    return Voices(torch.cat([*parts, silent]), torch.cat([weights[heard], rest]))


def shared(weights: Tensor) -> Tensor:
    """Scale the weights (speakers, ...) of a token that add up to more than 1, so that they do."""
    return weights / weights.sum(dim=0).clamp(min=1)


def silence_of(speech: Speech) -> Tensor:
    """What the speech encoder hears in silence, (12, channels)."""
    if speech.silence is None:
        raise InputError(
            "A dialogue needs to know how silence sounds to the model, and this speech does not "
            "say it: encode the speech again."
        )
    return speech.silence


def segment_of(speaker: Speaker, index: int) -> Tensor:
    """The speech of a speaker in segment `index`, (1, 49, 5, 12, channels).

    Before and after the speech there is silence.
    """
    speech, start = speaker.speech, speaker.start
    if start == 0 and index < speech.segments:
        return segment_windows(speech.features, index)
    first = index * NEW_FRAMES - MOTION_FRAMES - start
    heard = silence_of(speech).expand(SEGMENT_FRAMES, AUDIO_WINDOW, -1, -1)
    begin, end = max(first, 0), min(first + SEGMENT_FRAMES, speech.frames)
    if begin < end:
        heard = heard.clone()
        heard[begin - first : end - first] = windows(speech.features, begin, end)
    return heard[None]


def presence(speaker: Speaker, index: int, frames: int) -> Tensor:
    """How much of each latent frame of segment `index` is in the speaker's turn, (13,).

    The video has so many `frames`. What is before or after it counts as its first or last frame.
    """
    shown = frames_of(index).clamp(0, frames - 1)
    return latent_mean(((shown >= speaker.start) & (shown < speaker.end)).float())


def strength_of(speaker: Speaker, index: int) -> Tensor:
    """How strongly a speaker is heard in each latent frame of segment `index`, (13,)."""
    curve = speaker.speech.strength
    if curve is None:
        return torch.ones(LATENT_FRAMES)
    return latent_mean(curve[(frames_of(index) - speaker.start).clamp(0, len(curve) - 1)])


def frames_of(index: int) -> Tensor:
    """The video frames of segment `index`, (49,). The first segment begins with -2 and -1."""
    first = index * NEW_FRAMES - MOTION_FRAMES
    return torch.arange(first, first + SEGMENT_FRAMES)


def latent_mean(values: Tensor) -> Tensor:
    """The mean of the values (49,) of the frames in each latent frame, (13,).

    The first latent frame has one frame, and each of the others has four.
    """
    return torch.cat([values[:1], values[1:].unflatten(0, (LATENT_FRAMES - 1, -1)).mean(dim=1)])


def token_regions(
    speakers: tuple[Speaker, ...], identity: Identity, config: Hallo3Config
) -> Tensor:
    """The share of each image token that is in the region of each speaker, (speakers, tokens)."""

    def region_of(speaker: Speaker) -> Tensor:
        if speaker.region is None:
            return torch.ones(config.frame_tokens)
        laid = identity.framing.lay(speaker.region)
        return F.adaptive_avg_pool2d(laid[None], config.grid).flatten()

    return torch.stack([region_of(speaker) for speaker in speakers])


def faces(
    speech: Speech | Dialogue, identity: Identity, config: Hallo3Config, strength: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """The face embeddings (faces, 512) and their weights (faces, 13, image tokens).

    A speaker's own face is seen in the speaker's region, and the Identity's face elsewhere. The
    weights are None if all tokens see one face with strength 1.
    """
    speakers = speakers_of(speech)
    embeddings = [speaker.face for speaker in speakers if speaker.face is not None]
    if not embeddings and strength == 1:
        return identity.face, None
    known = [speaker.face is not None for speaker in speakers]
    regions = shared(token_regions(speakers, identity, config))[known]
    weights = torch.cat([regions, 1 - regions.sum(dim=0, keepdim=True)])
    return torch.cat([*embeddings, identity.face]), weights[:, None].expand(-1, LATENT_FRAMES, -1)
