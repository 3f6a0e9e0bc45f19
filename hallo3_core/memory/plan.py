"""Plans how a video fits into the memory of a device, before the work starts.

`need.py` says how much memory each part of the work needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import psutil
import torch
from diffusers import AutoencoderKLCogVideoX

from ..autoencoder.tiles import most_tiles
from ..errors import InputError
from ..network.config import LATENT_FRAMES, MOTION_FRAMES, Hallo3Config
from ..network.weight_formats import FORMATS, WeightFormat
from .model_size import Layer, Weights
from .need import (
    BRANCHES,
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
"""Makers of graphics cards use 1 GB = 2**30 bytes, so the plan does, too."""
RESERVED = 0.7 * GB
"""Bytes of a card that its driver, the program on it and a display need."""


def free_memory(device: torch.device) -> int:
    """Free bytes on a device."""
    if device.type in WITH_STREAMS:
        return torch.get_device_module(device).mem_get_info(device)[0]
    return psutil.virtual_memory().available


def choose_tiles(
    channels: int, latent_height: int, latent_width: int, size: int, free: float
) -> int:
    """The smallest number of tiles per side with which a segment can be decoded in `free` bytes.

    1 decodes the whole picture at once. Raises `InputError` if no number of tiles fits.
    """
    shape = (channels, latent_height, latent_width, size)
    for tiles in range(1, most_tiles((latent_height, latent_width)) + 1):
        least = decoding_bytes(*shape, tiles)
        if least <= free:
            return tiles
    raise InputError(
        f"Decoding takes at least {least / GB:.1f} GB and {max(free, 0) / GB:.1f} GB are free: "
        "close other programs, or use a device with more memory."
    )


@dataclass(frozen=True)
class WorkStage:
    """The memory of one part of the work, in bytes.

    - `weights`: the weights that it needs.
    - `work`: its own tensors.
    - `kept`: tensors of other stages. They are in main memory if networks take turns.
    - `layer`: the size of a layer, if layers can be streamed.
    - `streamed`: the number of layers whose matrices are copied to the device one by one.
    """

    name: str
    weights: float
    work: float
    kept: float = 0
    layer: Layer | None = None
    streamed: int = 0

    @property
    def alone(self) -> float:
        """Bytes that the stage needs if nothing else is on the device."""
        if self.layer is None or not self.streamed:
            return self.weights + self.work
        return self.weights + self.work - self.streamed * self.layer.matrices + self.buffers

    @property
    def buffers(self) -> float:
        """Bytes on the device for all streamed layers together."""
        return BUFFERS * self.layer.largest if self.layer else 0

    def within(self, free: float, layers: int) -> "WorkStage":
        """The same stage with as few streamed layers as possible, to fit into `free` bytes."""
        if self.layer is None or self.alone <= free:
            return self
        over = self.alone + self.buffers - free
        return replace(self, streamed=min(ceil(over / self.layer.matrices), layers))


@dataclass(frozen=True)
class MemoryPlan:
    """How the networks of a model share the memory of a device.

    - `in_turn`: False if all networks stay on the device. True if each is there only while it
      works. Then some layers of the transformers may be streamed.
    - `tiles`: a segment is decoded in `tiles` x `tiles` parts, one after the other.
    - `rows`: the batch size of the denoiser. 2 computes both branches of guidance in one call. It
      is used if it fits, or if it reduces the number of layers to copy in a step.
    """

    stages: tuple[WorkStage, ...]
    weights: Weights
    in_turn: bool
    tiles: int
    rows: int

    def peak(self, stage: WorkStage) -> float:
        """Bytes at the peak of a stage."""
        return stage.alone if self.in_turn else self.weights.total + stage.kept + stage.work

    @property
    def most(self) -> float:
        """Bytes at the highest peak."""
        return max(map(self.peak, self.stages))

    def streamed(self, name: str) -> int:
        """The number of streamed layers in the stage with this name."""
        return next(stage.streamed for stage in self.stages if stage.name == name)

    @property
    def coming(self) -> int:
        """The number of layers that are copied to the device in a guided step."""
        return self.streamed("sampling") * (2 // self.rows)

    def lines(self) -> Iterator[str]:
        for stage in self.stages:
            yield f"{stage.name}: {self.peak(stage) / GB:.1f} GB at the peak"
        yield self.how

    @property
    def how(self) -> str:
        """The plan in words."""
        decoded = "whole" if self.tiles == 1 else f"in {self.tiles} x {self.tiles} tiles"
        return f"{self.where}; decoded {decoded}"

    @property
    def where(self) -> str:
        """Where the networks are, in words."""
        where = (
            "each network on the device while it works"
            if self.in_turn
            else "all networks on the device"
        )
        if streamed := self.streamed("sampling"):
            where += f", {streamed} layers one by one"
        return where + (", both branches of guidance at once" if self.rows == 2 else "")


@dataclass(frozen=True)
class Work:
    """The work to plan.

    The work is done in numbers of `size` bytes. `kind` is the format of the weights. `listening`
    says that the speech is encoded on the device. `voices` is that of `sampling_bytes`. Without
    `vae`, decoding is left out.
    """

    config: Hallo3Config
    vae: AutoencoderKLCogVideoX | None
    weights: Weights
    kind: WeightFormat
    size: int
    listening: bool
    voices: int = BRANCHES

    @property
    def channels(self) -> int | None:
        """Channels of the autoencoder at full resolution."""
        return None if self.vae is None else self.vae.config.block_out_channels[0]

    def plan(self, in_turn: bool, rows: int, free: float) -> MemoryPlan:
        """The plan with these choices. If `in_turn`, layers and tiles are chosen for `free` bytes.

        Raises `InputError` if decoding cannot fit.
        """
        tiles = 1
        if in_turn and self.channels is not None:
            height, width = self.config.latent_height, self.config.latent_width
            left = free - self.weights.vae
            tiles = choose_tiles(self.channels, height, width, self.size, left)
        stages = self._stages(rows, tiles)
        if in_turn:
            stages = [stage.within(free, self.config.layers) for stage in stages]
        return MemoryPlan(tuple(stages), self.weights, in_turn, tiles, rows)

    def _unpacking(self, frames: int, rows: int = 1) -> float:
        """Bytes that quantised matrices add to the peak of a layer.

        The work is on `rows` videos of `frames` latent frames. A matrix is converted and scaled
        before it is used, if there are no products in its layout. The matrices of the MLP are the
        largest. When they are used, fewer hidden states are alive than at the peak.
        """
        if self.kind.layout is None or self.kind.layout.products:
            return 0
        config = self.config
        tokens = rows * (frames * config.frame_tokens + config.text_tokens)
        matrix = 4 * config.width**2 * 2 * self.size
        hidden = (HIDDEN_STATES - MLP_STATES) * tokens * config.width * self.size
        return SLACK * max(matrix - hidden, 0)

    def _stages(self, rows: int, tiles: int) -> list[WorkStage]:
        config, weights, size = self.config, self.weights, self.size
        kept = kept_bytes(config, size)
        portrait = portrait_bytes(config, size) + self._unpacking(frames=1)
        sampling = sampling_bytes(config, rows, size, self.voices)
        sampling += self._unpacking(LATENT_FRAMES, rows)
        speech = [
            WorkStage("speech", weights.audio_projector, projecting_bytes(config, size), kept)
        ]
        if self.listening:
            speech.append(WorkStage("speech", weights.speech_encoder, listening_bytes()))
        decoding = []
        if self.channels is not None:
            encoding = encoding_bytes(self.channels, MOTION_FRAMES + 1, *config.canvas, size)
            portrait = max(portrait, encoding)
            latent = config.latent_height, config.latent_width
            decoded = decoding_bytes(self.channels, *latent, size, tiles)
            decoding = [
                WorkStage("decoding", weights.vae, decoded, kept),
                WorkStage("motion", weights.vae, encoding, kept),
            ]
        reference = weights.reference_network + weights.vae
        return [
            WorkStage("portrait", reference, portrait, layer=weights.reference_layer),
            max(speech, key=lambda stage: stage.alone),
            WorkStage("sampling", weights.denoiser, sampling, layer=weights.denoiser_layer),
            *decoding,
        ]


def plan_memory(
    config: Hallo3Config,
    vae: AutoencoderKLCogVideoX | None,
    kind: str,
    free: float,
    offload: bool = True,
    size: int | None = None,
    listening: bool = True,
    voices: int = BRANCHES,
) -> MemoryPlan:
    """Plan how a model with weights of a `kind` (a key of `FORMATS`) fits into `free` bytes.

    `vae` may be without weights. Without `vae`, the plan leaves out decoding. `offload` says that
    networks can be moved to main memory. The work is done in numbers of `size` bytes; the default
    is the size of the weights that are not quantised. `listening` says that the speech is encoded
    on the device, too. `voices` is how many all branches of guidance hear together; only branches
    of one voice are computed at once. If the model does not fit, `InputError` says how much memory
    is enough.
    """
    weight_format = FORMATS[kind]
    size = size or weight_format.dtype.itemsize
    weights = Weights.of(config, vae, weight_format, size)
    work = Work(config, vae, weights, weight_format, size, listening, voices)
    batches = (2, 1) if voices == BRANCHES else (1,)
    plans = [work.plan(in_turn=False, rows=rows, free=free) for rows in batches]
    if offload and plans[-1].most > free:
        in_turn = [work.plan(in_turn=True, rows=rows, free=free) for rows in batches]
        plans += sorted(in_turn, key=lambda plan: plan.coming)
    fitting = next((plan for plan in plans if plan.most <= free), None)
    if fitting is None:
        height, width = config.canvas
        least = min(plan.most for plan in plans)
        shorter: dict[float, str] = {
            4: "use bf16, ",
            2: "use fp8, ",
            1: "use nvfp4 or asym_w4a8_int8, ",
        }
        smaller = shorter.get(weight_format.bytes, "")
        raise InputError(
            f"The model takes at least {least / GB:.1f} GB at {width} x {height} in {kind} and "
            f"{max(free, 0) / GB:.1f} GB are free: close other programs, {smaller}or use a device "
            f"with {ceil((least + RESERVED) / GB)} GB."
        )
    return fitting
