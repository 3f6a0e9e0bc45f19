"""What a video takes of a device's memory, known before work starts.

The figures are of tensors that are alive at once, counted at full size on a card that is not there
(docs/memory.md), and 5 % for what allocators lose.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import psutil
import torch
from torch import nn

from ..autoencoder.vae import MOST_TILES, TILE_UNITS
from ..errors import InputError
from ..network.config import LATENT_FRAMES, MOTION_FRAMES, Hallo3Config
from .model_size import WEIGHTS, Layer, Weights
from .need import (
    HIDDEN_STATES,
    MLP_STATES,
    SLACK,
    decoding_bytes,
    encoding_bytes,
    kept_bytes,
    listening_bytes,
    portrait_bytes,
    projecting_bytes,
    sampling_bytes,
)
from .streaming import BUFFERS, WITH_STREAMS

GB = 2**30
"""As the makers of graphics cards count it."""
RESERVED = 0.7 * GB
"""What a card's driver, the program on it and a display take."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type in WITH_STREAMS:
        return torch.get_device_module(device).mem_get_info(device)[0]
    return psutil.virtual_memory().available


def choose_tiles(
    channels: int, latent_height: int, latent_width: int, size: int, free: float
) -> int:
    """The fewest tiles a side that a segment can be decoded in with `free` bytes; 1 is whole.

    Raises `InputError` if there are none.
    """
    shape = (channels, latent_height, latent_width, size)
    most = min(MOST_TILES, min(latent_height, latent_width) // TILE_UNITS)
    for tiles in range(1, max(most, 1) + 1):
        least = decoding_bytes(*shape, tiles)
        if least <= free:
            return tiles
    raise InputError(
        f"Decoding takes at least {least / GB:.1f} GB and {max(free, 0) / GB:.1f} GB are free: "
        "close other programs, or use a device with more memory."
    )


@dataclass(frozen=True)
class Stage:
    """A part of the work, in bytes.

    Of the weights that it needs, of its own tensors, and of what is `kept` beside it, which rests
    in main memory where networks are there in turn. `streamed` of its layers come one by one.
    """

    name: str
    weights: float
    work: float
    kept: float = 0
    layer: Layer | None = None
    streamed: int = 0

    @property
    def alone(self) -> float:
        """What it takes with nothing beside it on the device."""
        if not self.streamed:
            return self.weights + self.work
        return self.weights + self.work - self.streamed * self.layer.matrices + self.buffers

    @property
    def buffers(self) -> float:
        """What is on the device of the layers that come one by one."""
        return BUFFERS * self.layer.largest

    def within(self, free: float, layers: int) -> "Stage":
        """The same with as many of its `layers` streamed as it takes to fit into `free` bytes."""
        if self.layer is None or self.alone <= free:
            return self
        over = self.alone + self.buffers - free
        return replace(self, streamed=min(ceil(over / self.layer.matrices), layers))


@dataclass(frozen=True)
class MemoryPlan:
    """How a model's networks share a device.

    All stay there (`in_turn` is False), or each is there while it works, and then some layers of
    the transformers may come only for their own part of a call. `tiles` a side are decoded one
    after the other, and the denoiser sees `rows` at once: 2, both branches of guidance, where
    there is room, or where it halves what has to come.
    """

    stages: tuple[Stage, ...]
    weights: Weights
    in_turn: bool
    tiles: int
    rows: int

    def peak(self, stage: Stage) -> float:
        """Bytes at the peak of a stage."""
        return stage.alone if self.in_turn else self.weights.total + stage.kept + stage.work

    @property
    def most(self) -> float:
        """Bytes at the highest peak."""
        return max(map(self.peak, self.stages))

    def streamed(self, name: str) -> int:
        """How many layers come one by one in the stage of this name."""
        return next(stage.streamed for stage in self.stages if stage.name == name)

    @property
    def coming(self) -> int:
        """Layers that come to the device in a guided step."""
        return self.streamed("sampling") * (2 // self.rows)

    def lines(self) -> Iterator[str]:
        for stage in self.stages:
            yield f"{stage.name}: {self.peak(stage) / GB:.1f} GB at the peak"
        yield self.how

    @property
    def how(self) -> str:
        """What stays on the device, in words."""
        where = "each network on the device while it works" if self.in_turn else "all stays there"
        if streamed := self.streamed("sampling"):
            where += f", {streamed} layers one by one"
        decoded = "whole" if self.tiles == 1 else f"in {self.tiles} x {self.tiles} tiles"
        if self.rows == 2:
            where += ", both branches of guidance at once"
        return f"{where}; decoded {decoded}"


@dataclass(frozen=True)
class Work:
    """What is to be planned: a model whose numbers are of `size` bytes, in layers of `matrix`."""

    config: Hallo3Config
    vae: nn.Module | None
    weights: Weights
    matrix: int
    size: int
    listening: bool

    def plan(self, in_turn: bool, rows: int, free: float) -> MemoryPlan:
        """How it is done in this way; if networks are there in turn, within `free` bytes."""
        tiles = 1
        if in_turn and self.vae is not None:
            tiles = choose_tiles(*self._latent, free - self.weights.vae)
        stages = self._stages(rows, tiles)
        if in_turn:
            stages = [stage.within(free, self.config.layers) for stage in stages]
        return MemoryPlan(tuple(stages), self.weights, in_turn, tiles, rows)

    @property
    def _latent(self) -> tuple[int, int, int, int]:
        """Channels of the autoencoder, height and width of latents, and bytes of a number."""
        channels = self.vae.config.block_out_channels[0]
        return channels, self.config.latent_height, self.config.latent_width, self.size

    def _unpacking(self, frames: int, rows: int = 1) -> float:
        """What fp8 adds to the peak of a layer that `rows` of so many latent frames go through.

        A matrix is made float32, scaled and rounded before it is used. Those of the MLP are as
        large as it gets, and their turn comes when fewer hidden states are alive than at the peak.
        """
        if self.matrix >= self.size:
            return 0
        config = self.config
        tokens = rows * (frames * config.frame_tokens + config.text_tokens)
        matrix = 4 * config.width**2 * (4 + self.size)
        hidden = (HIDDEN_STATES - MLP_STATES) * tokens * config.width * self.size
        return SLACK * max(matrix - hidden, 0)

    def _stages(self, rows: int, tiles: int) -> list[Stage]:
        config, weights, size = self.config, self.weights, self.size
        kept = kept_bytes(config, size)
        portrait = portrait_bytes(config, size) + self._unpacking(frames=1)
        sampling = sampling_bytes(config, rows, size) + self._unpacking(LATENT_FRAMES, rows)
        speech = [Stage("speech", weights.audio_projector, projecting_bytes(config, size), kept)]
        if self.listening:
            speech.append(Stage("speech", weights.speech_encoder, listening_bytes()))
        decoding = []
        if self.vae is not None:
            encoding = encoding_bytes(self._latent[0], MOTION_FRAMES + 1, *config.canvas, size)
            portrait = max(portrait, encoding)
            decoding = [
                Stage("decoding", weights.vae, decoding_bytes(*self._latent, tiles), kept),
                Stage("motion", weights.vae, encoding, kept),
            ]
        reference = weights.reference_network + weights.vae
        return [
            Stage("portrait", reference, portrait, layer=weights.reference_layer),
            max(speech, key=lambda stage: stage.alone),
            Stage("sampling", weights.denoiser, sampling, layer=weights.denoiser_layer),
            *decoding,
        ]


def plan_memory(
    config: Hallo3Config,
    vae: nn.Module | None,
    kind: str,
    free: float,
    offload: bool = True,
    size: int | None = None,
    listening: bool = True,
) -> MemoryPlan:
    """How a model with weights of a `kind` fits into `free` bytes.

    `vae` may be without weights; without it the plan leaves out decoding. `offload` says that
    networks can rest in other memory. The work is done in numbers of `size` bytes, as large as
    weights of that kind that are not in fp8 unless said otherwise. `listening` says that the speech
    is encoded on the device, too. Raises `InputError`, saying how much would do, if the model does
    not fit.
    """
    matrix, usual = WEIGHTS[kind]
    size = size or usual
    weights = Weights.of(config, vae, matrix, size)
    work = Work(config, vae, weights, matrix, size, listening)
    plans = [work.plan(in_turn=False, rows=rows, free=free) for rows in (2, 1)]
    if offload and plans[1].most > free:
        in_turn = [work.plan(in_turn=True, rows=rows, free=free) for rows in (2, 1)]
        plans += sorted(in_turn, key=lambda plan: plan.coming)
    fitting = next((plan for plan in plans if plan.most <= free), None)
    if fitting is None:
        height, width = config.canvas
        least = min(plan.most for plan in plans)
        smaller = {"fp32": "use bf16, ", "bf16": "use fp8, ", "fp16": "use fp8, "}.get(kind, "")
        raise InputError(
            f"The model takes at least {least / GB:.1f} GB at {width} x {height} in {kind} and "
            f"{max(free, 0) / GB:.1f} GB are free: close other programs, {smaller}or use a device "
            f"with {ceil((least + RESERVED) / GB)} GB."
        )
    return fitting
