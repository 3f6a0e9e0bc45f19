"""The memory that each part of the work needs in addition to its weights, in bytes.

The constants count the tensors that are alive at the same time. They were measured at full size on
a simulated card (docs/memory.md). 5 % is added for the fragmentation of the allocator.
"""

from ..autoencoder.lean import VALUES_AT_ONCE
from ..autoencoder.tiles import tiling
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

BRANCHES = 2
"""The branches of guidance. Of a plain speech, each hears one voice: the speech, and silence."""

HIDDEN_STATES = 14
"""Tensors with the size of all text and image tokens that are alive at the peak of a layer."""

SAMPLER_LATENTS = 12
"""Tensors with the size of a segment's latents that a sampler holds during a denoiser call."""

MLP_STATES = 7
"""Like `HIDDEN_STATES`, while a quantised matrix of the MLP is converted."""

CHUNK_FRAMES = 8
"""The number of frames that the autoencoder encodes or decodes at a time."""

LISTENING_BYTES = 824
"""Bytes that wav2vec2-base needs for each sample of the speech. It is always float32."""


def latent_bytes(config: Hallo3Config) -> int:
    """Bytes of the latents of a segment, in float32."""
    grid = config.latent_height * config.latent_width
    return 4 * config.latent_channels * LATENT_FRAMES * grid


def kept_bytes(config: Hallo3Config, size: int) -> float:
    """Bytes of the keys and values of the reference and the face. A video computes them once."""
    tokens = config.frame_tokens + LATENT_FRAMES * config.face_tokens
    return SLACK * 2 * config.layers * tokens * config.width * size


def sampling_bytes(config: Hallo3Config, rows: int, size: int, voices: int = BRANCHES) -> float:
    """Bytes that a denoiser call on a batch of `rows` needs in addition to its weights.

    Numbers take `size` bytes. These are counted: the hidden states of a layer; the tensors of the
    sampler; the text embeddings of the batch and one empty text; the keys and values that are the
    same in all steps. The latter are those of the whole video, and those of the audio tokens for
    all branches of guidance, even if a call computes only one branch. `voices` is how many the
    branches hear together: more than two in a dialogue.
    """
    tokens = config.text_tokens + LATENT_FRAMES * config.frame_tokens
    audio = 2 * config.layers * max(rows, voices, BRANCHES) * LATENT_FRAMES * config.audio_tokens
    texts = (rows + 1) * config.text_tokens * config.text_width
    numbers = (HIDDEN_STATES * rows * tokens + audio) * config.width + texts
    latents = SAMPLER_LATENTS * rows * latent_bytes(config)
    return kept_bytes(config, size) + SLACK * (numbers * size + latents)


def portrait_bytes(config: Hallo3Config, size: int) -> float:
    """Bytes that the reference network needs for its one frame and the tokens of all layers."""
    hidden = HIDDEN_STATES * (config.text_tokens + config.frame_tokens)
    return SLACK * (hidden + config.layers * config.frame_tokens) * config.width * size


def projecting_bytes(config: Hallo3Config, size: int) -> float:
    """Bytes that the audio projector needs for the speech of a segment and for null audio.

    The motion latents, the initial latents and the text embeddings of both branches exist by then
    and are counted, too.
    """
    heard = AUDIO_WINDOW * AUDIO_LAYERS * config.audio_channels
    hidden = 3 * config.audio_tokens * config.audio_width
    texts = 2 * config.text_tokens * config.text_width
    numbers = 2 * SEGMENT_FRAMES * (heard + hidden) + texts
    return SLACK * (numbers * size + 2 * latent_bytes(config))


def listening_bytes() -> float:
    """Bytes that the speech encoder needs for the longest speech that one call encodes."""
    return SLACK * LISTENING_BYTES * LONGEST_PASS * SAMPLE_RATE // FPS


def decoding_bytes(
    channels: int, latent_height: int, latent_width: int, size: int, tiles: int = 1
) -> float:
    """Bytes that the autoencoder needs to decode a segment.

    `channels` is the width of its layers at full resolution. Numbers take `size` bytes. With
    `tiles` x `tiles` tiles, float32 copies are added: the video, and the finished frames of the
    current tile.
    """
    if tiles > 1:
        (height, width), _ = tiling((latent_height, latent_width), tiles)
        pixels = (latent_height * latent_width + height * width) * SPACE_COMPRESSION**2
        ready = SLACK * 4 * 3 * SEGMENT_FRAMES * pixels
        return decoding_bytes(channels, height, width, size) + ready
    frame = channels * latent_height * latent_width * SPACE_COMPRESSION**2
    # the largest convolution has twice the channels; two results of its input's size are alive,
    # and one that it fills if it does not process all frames at once
    at_once = _frames_at_once(2 * frame, CHUNK_FRAMES)
    results = 2 if at_once == CHUNK_FRAMES else 3
    return SLACK * (76 + results * at_once) * frame * size


def encoding_bytes(channels: int, frames: int, height: int, width: int, size: int) -> float:
    """Bytes that the autoencoder needs to encode `frames` of `height` x `width` pixels.

    The first chunk contains the frames that do not fill a chunk. At the peak, three tensors of the
    first chunk are alive, and a part of one in a convolution or a fourth tensor.
    """
    frame = channels * height * width
    first = min(frames, CHUNK_FRAMES + frames % CHUNK_FRAMES)
    hidden = 3 * first + max(2 * _frames_at_once(frame, first) + 15, first + 12)
    later = 9 if frames >= 2 * CHUNK_FRAMES else 0
    return SLACK * (hidden + later) * frame * size


def _frames_at_once(frame: int, most: int) -> int:
    """The number of frames that a convolution processes at a time, at most `most`.

    `frame` is the size of one frame, in numbers.
    """
    return min(max(VALUES_AT_ONCE // frame, 1), most)
