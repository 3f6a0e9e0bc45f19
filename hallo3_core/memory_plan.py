"""What a video takes of a device's memory, known before work starts.

The figures are of tensors that are alive at once, counted without a device
(`tests/core/test_memory_plan.py`), and 5 % for what allocators lose.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import ceil

import psutil
import torch
from torch import nn

from .conditioning import AudioProjector
from .config import (
    AUDIO_LAYERS,
    AUDIO_WINDOW,
    LATENT_FRAMES,
    MOTION_FRAMES,
    SEGMENT_FRAMES,
    SPACE_COMPRESSION,
    Hallo3Config,
)
from .errors import InputError
from .lean_vae import WINDOW
from .transformer import Denoiser, ReferenceNetwork
from .vae import MOST_TILES, TILE_UNITS, tile_side

GB = 2**30
"""As the makers of graphics cards count it."""
SLACK = 1.05
RESERVED = 0.7 * GB
"""What a card's driver, the program on it and a display take."""

HIDDEN_STATES = 14
"""Tensors of the size of all text and image tokens that are alive at the peak of a layer."""

SPEECH_ENCODER_BYTES = 94_371_712 * 4
WEIGHTS = {"bf16": (2, 2), "fp16": (2, 2), "fp8": (1, 2), "fp32": (4, 4)}
"""Bytes of each number in the matrices of layers, and of any other."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def sampling_bytes(config: Hallo3Config, rows: int, size: int) -> float:
    """What a denoiser call on `rows` videos takes beside its weights, in numbers of `size` bytes.

    Hidden states of a layer, and the keys and values that stay the same in all steps: of the
    reference tokens once, of face and audio tokens for each row.
    """
    tokens = config.text_tokens + LATENT_FRAMES * config.frame_tokens
    hidden = HIDDEN_STATES * rows * tokens
    per_frame = config.face_tokens + config.audio_tokens
    kept = 2 * config.layers * (config.frame_tokens + rows * LATENT_FRAMES * per_frame)
    return SLACK * (hidden + kept) * config.width * size


def portrait_bytes(config: Hallo3Config, size: int) -> float:
    """What the reference network takes for its one frame, and the tokens of all its layers."""
    hidden = HIDDEN_STATES * (config.text_tokens + config.frame_tokens)
    return SLACK * (hidden + config.layers * config.frame_tokens) * config.width * size


def projecting_bytes(config: Hallo3Config, size: int) -> float:
    """What the audio projector takes for the speech of a segment and for silence."""
    heard = AUDIO_WINDOW * AUDIO_LAYERS * config.audio_channels
    hidden = 3 * config.audio_tokens * config.audio_width
    return SLACK * 2 * SEGMENT_FRAMES * (heard + hidden) * size


def decoding_bytes(channels: int, latent_height: int, latent_width: int, size: int) -> float:
    """What the autoencoder takes to decode a segment, of `channels` at full resolution."""
    frame = channels * latent_height * latent_width * SPACE_COMPRESSION**2
    return SLACK * (76 * frame + 2 * max(WINDOW, frame)) * size


def tiled_decoding_bytes(
    channels: int, latent_height: int, latent_width: int, size: int, tiles: int
) -> float:
    """The same in `tiles` a side, whose results wait for one another."""
    sides = (tile_side(side, tiles) for side in (latent_height, latent_width))
    video = 3 * SEGMENT_FRAMES * latent_height * latent_width * SPACE_COMPRESSION**2
    return decoding_bytes(channels, *sides, size) + 4 * video * size


def encoding_bytes(channels: int, frames: int, height: int, width: int, size: int) -> float:
    """What the autoencoder takes to encode pixels, which it does 8 or 9 frames at a time."""
    return SLACK * (18 + 4 * min(frames, 12)) * channels * height * width * size


def choose_tiles(
    channels: int, latent_height: int, latent_width: int, size: int, free: float
) -> int:
    """The fewest tiles a side that a segment can be decoded in with `free` bytes; 1 is whole.

    Raises `InputError` if there are none.
    """
    shape = (channels, latent_height, latent_width, size)
    if decoding_bytes(*shape) <= free:
        return 1
    most = min(MOST_TILES, min(latent_height, latent_width) // TILE_UNITS)
    for tiles in range(2, most + 1):
        if tiled_decoding_bytes(*shape, tiles) <= free:
            return tiles
    least = tiled_decoding_bytes(*shape, max(most, 1))
    raise InputError(
        f"Decoding takes at least {least / GB:.1f} GB and {max(free, 0) / GB:.1f} GB are free: "
        "close other programs, or use a device with more memory."
    )


@cache
def _network_bytes(config: Hallo3Config, kind: str) -> tuple[float, ...]:
    with torch.device("meta"):
        denoiser = Denoiser(config)
        networks = (denoiser, ReferenceNetwork(config), AudioProjector(config), denoiser.layers[:1])
    return tuple(_bytes(network, *WEIGHTS[kind]) for network in networks)


def _bytes(network: nn.Module, matrix: int, other: int) -> float:
    """Bytes of a network with `matrix` for each number in its layers' matrices."""
    total = 0
    for name, value in network.state_dict().items():
        in_layer = value.ndim == 2 and re.search(r"(^|layers\.)\d+\.", name)
        total += value.numel() * (matrix if in_layer else other)
    return total


@dataclass(frozen=True)
class Weights:
    """Bytes of the weights of a model, by network; `layer` is one layer of the denoiser."""

    denoiser: float
    reference_network: float
    audio_projector: float
    vae: float
    layer: float
    speech_encoder: float = SPEECH_ENCODER_BYTES

    @classmethod
    def of(cls, config: Hallo3Config, vae: nn.Module | None, kind: str) -> "Weights":
        """Of networks of these sizes whose weights are kept as `kind`, one of `WEIGHTS`."""
        denoiser, reference, projector, layer = _network_bytes(config, kind)
        autoencoder = 0 if vae is None else _bytes(vae, *WEIGHTS[kind])
        return cls(denoiser, reference, projector, autoencoder, layer)

    @property
    def total(self) -> float:
        networks = (self.denoiser, self.reference_network, self.audio_projector, self.vae)
        return sum(networks) + self.speech_encoder


@dataclass(frozen=True)
class Stage:
    """A part of the work: bytes of the weights that it needs, and of its own tensors."""

    name: str
    weights: float
    work: float


@dataclass(frozen=True)
class MemoryPlan:
    """How a model's networks share a device.

    All stay there (`in_turn` is False), or each is there while it works; `streamed` layers of the
    denoiser (and of the reference network) come only for their own part of a call. `tiles` a side
    are decoded one after the other, and the denoiser sees `rows` at once: 2, both branches of
    guidance, where all stays on the device and there is room.
    """

    stages: tuple[Stage, ...]
    weights: Weights
    in_turn: bool
    streamed: int
    tiles: int
    rows: int = 1

    def peak(self, stage: Stage) -> float:
        """Bytes at the peak of a stage."""
        if not self.in_turn:
            return self.weights.total + stage.work
        return stage.weights - self._away(stage) + stage.work

    def _away(self, stage: Stage) -> float:
        layers = self.streamed - 1 if self.streamed and stage.name in STREAMABLE else 0
        return min(layers * self.weights.layer, stage.weights)

    @property
    def most(self) -> float:
        """Bytes at the highest peak."""
        return max(map(self.peak, self.stages))

    def lines(self) -> Iterator[str]:
        for stage in self.stages:
            yield f"{stage.name}: {self.peak(stage) / GB:.1f} GB at the peak"
        yield self.how

    @property
    def how(self) -> str:
        """What stays on the device, in words."""
        where = "each network on the device while it works" if self.in_turn else "all stays there"
        if self.streamed:
            where += f", {self.streamed} layers one by one"
        decoded = "whole" if self.tiles == 1 else f"in {self.tiles} x {self.tiles} tiles"
        if self.rows == 2:
            where += ", both branches of guidance at once"
        return f"{where}; decoded {decoded}"


STREAMABLE = ("portrait", "sampling")


def plan_memory(
    config: Hallo3Config, vae: nn.Module | None, kind: str, free: float, offload: bool = True
) -> MemoryPlan:
    """How a model with weights of a `kind` fits into `free` bytes.

    `vae` may be without weights; without it the plan leaves out decoding. `offload` says that
    networks can rest in other memory. Raises `InputError`, saying how much would do, if the model
    does not fit.
    """
    size, weights = WEIGHTS[kind][1], Weights.of(config, vae, kind)
    unpacked = 4 * config.width**2 * (4 + size) if WEIGHTS[kind][0] < size else 0
    stages = [
        Stage("portrait", weights.reference_network, portrait_bytes(config, size)),
        Stage("speech", weights.audio_projector, projecting_bytes(config, size)),
        Stage("sampling", weights.denoiser, sampling_bytes(config, 1, size) + unpacked),
    ]
    if vae is not None:
        channels = vae.config.block_out_channels[0]
        encoding = encoding_bytes(channels, MOTION_FRAMES + 1, *config.canvas, size)
        most = max(encoding, stages[0].work)
        stages[0] = Stage("portrait", weights.reference_network + weights.vae, most)
        latent = (channels, config.latent_height, config.latent_width, size)
        stages.append(Stage("decoding", weights.vae, decoding_bytes(*latent)))
    plan = MemoryPlan(tuple(stages), weights, in_turn=False, streamed=0, tiles=1)
    together = Stage("sampling", weights.denoiser, sampling_bytes(config, 2, size) + unpacked)
    if max(plan.most, plan.peak(together)) <= free:
        stages[2] = together
        return replace(plan, stages=tuple(stages), rows=2)
    if offload and plan.most > free:
        tiles = 1 if vae is None else choose_tiles(*latent, free - weights.vae)
        if tiles > 1:
            stages[-1] = Stage("decoding", weights.vae, tiled_decoding_bytes(*latent, tiles))
        over = max(part.weights + part.work for part in stages if part.name in STREAMABLE) - free
        streamed = min(ceil(over / weights.layer) + 1, config.layers) if over > 0 else 0
        plan = MemoryPlan(tuple(stages), weights, in_turn=True, streamed=streamed, tiles=tiles)
    if plan.most > free:
        height, width = config.canvas
        smaller = {"fp32": "use bf16, ", "bf16": "use fp8, ", "fp16": "use fp8, "}.get(kind, "")
        raise InputError(
            f"The model takes at least {plan.most / GB:.1f} GB at {width} x {height} in {kind} and "
            f"{max(free, 0) / GB:.1f} GB are free: close other programs, {smaller}or use a device "
            f"with {ceil((plan.most + RESERVED) / GB)} GB."
        )
    return plan
