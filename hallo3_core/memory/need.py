"""How much memory each part of the work needs beside its weights, in bytes.

The figures are of tensors that are alive at once, counted at full size on a card that is not there
(docs/memory.md), and 5 % for what allocators lose.
"""

from ..autoencoder.lean import WINDOW
from ..autoencoder.vae import tile_side
from ..network.config import (
    AUDIO_LAYERS,
    AUDIO_WINDOW,
    FPS,
    LATENT_FRAMES,
    SAMPLE_RATE,
    SEGMENT_FRAMES,
    SPACE_COMPRESSION,
    Hallo3Config,
)
from ..speech.encode import LONGEST_PASS

SLACK = 1.05

HIDDEN_STATES = 14
"""Tensors of the size of all text and image tokens that are alive at the peak of a layer."""

SAMPLER_LATENTS = 12
"""Tensors of the size of a segment's latents that a sampler has beside the denoiser."""

MLP_STATES = 7
"""The same while a matrix of the MLP is made ready."""

CHUNK_FRAMES = 8
"""Frames that the autoencoder makes, or looks at, at a time."""

LISTENING_BYTES = 824
"""What wav2vec2-base, which is always float32, takes for each sample of the speech."""


def latent_bytes(config: Hallo3Config) -> int:
    """The latents of a segment, float32."""
    grid = config.latent_height * config.latent_width
    return 4 * config.latent_channels * LATENT_FRAMES * grid


def kept_bytes(config: Hallo3Config, size: int) -> float:
    """The keys and values of the reference and the face, which are the same for a whole video."""
    tokens = config.frame_tokens + LATENT_FRAMES * config.face_tokens
    return SLACK * 2 * config.layers * tokens * config.width * size


def sampling_bytes(config: Hallo3Config, rows: int, size: int) -> float:
    """What a denoiser call on `rows` videos takes beside its weights, in numbers of `size` bytes.

    Hidden states of a layer, what the sampler has, the texts of the videos and none beside them,
    and the keys and values that stay the same in all steps: those of a whole video, and of audio
    tokens for both branches of guidance, even if a call takes one.
    """
    tokens = config.text_tokens + LATENT_FRAMES * config.frame_tokens
    audio = 2 * config.layers * max(rows, 2) * LATENT_FRAMES * config.audio_tokens
    texts = (rows + 1) * config.text_tokens * config.text_width
    numbers = (HIDDEN_STATES * rows * tokens + audio) * config.width + texts
    latents = SAMPLER_LATENTS * rows * latent_bytes(config)
    return kept_bytes(config, size) + SLACK * (numbers * size + latents)


def portrait_bytes(config: Hallo3Config, size: int) -> float:
    """What the reference network takes for its one frame, and the tokens of all its layers."""
    hidden = HIDDEN_STATES * (config.text_tokens + config.frame_tokens)
    return SLACK * (hidden + config.layers * config.frame_tokens) * config.width * size


def projecting_bytes(config: Hallo3Config, size: int) -> float:
    """What the audio projector takes for the speech of a segment and for silence.

    Motion, the first latents and the texts of both branches are there by then.
    """
    heard = AUDIO_WINDOW * AUDIO_LAYERS * config.audio_channels
    hidden = 3 * config.audio_tokens * config.audio_width
    texts = 2 * config.text_tokens * config.text_width
    numbers = 2 * SEGMENT_FRAMES * (heard + hidden) + texts
    return SLACK * (numbers * size + 2 * latent_bytes(config))


def listening_bytes() -> float:
    """What the speech encoder takes for the longest speech that is encoded in one pass."""
    return SLACK * LISTENING_BYTES * LONGEST_PASS * SAMPLE_RATE // FPS


def decoding_bytes(
    channels: int, latent_height: int, latent_width: int, size: int, tiles: int = 1
) -> float:
    """What the autoencoder takes to decode a segment, of `channels` at full resolution.

    In more than one of `tiles` a side, there are the video as well, the tile before and what is
    ready of this one, in float32.
    """
    if tiles > 1:
        height, width = (tile_side(side, tiles) for side in (latent_height, latent_width))
        pixels = (latent_height * latent_width + 2 * height * width) * SPACE_COMPRESSION**2
        ready = SLACK * 4 * 3 * SEGMENT_FRAMES * pixels
        return decoding_bytes(channels, height, width, size) + ready
    frame = channels * latent_height * latent_width * SPACE_COMPRESSION**2
    # the largest convolution has twice the channels, and two results of its input's size around it
    at_once = _frames_at_once(2 * frame, CHUNK_FRAMES)
    return SLACK * (76 + 3 * at_once) * frame * size


def encoding_bytes(channels: int, frames: int, height: int, width: int, size: int) -> float:
    """What the autoencoder takes to encode pixels, first those frames that make no whole chunk.

    At the peak there are three tensors of these, and a part of one in a convolution or a fourth.
    """
    frame = channels * height * width
    first = min(frames, CHUNK_FRAMES + frames % CHUNK_FRAMES)
    hidden = 3 * first + max(2 * _frames_at_once(frame, first) + 15, first + 12)
    later = 9 if frames >= 2 * CHUNK_FRAMES else 0
    return SLACK * (hidden + later) * frame * size


def _frames_at_once(frame: int, most: int) -> int:
    """How many frames, of so many numbers, a convolution of the autoencoder takes at a time."""
    return min(max(WINDOW // frame, 1), most)
