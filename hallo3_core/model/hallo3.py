"""All networks of one Hallo3 model."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from transformers import Wav2Vec2Model

from ..autoencoder import vae
from ..checkpoints.reading import read_weights
from ..errors import InputError
from ..memory.need import BRANCHES
from ..memory.placement import Placement
from ..memory.plan import MemoryPlan, plan_memory
from ..network.conditioning import AudioProjector
from ..network.config import Hallo3Config
from ..network.transformer import Denoiser, ReferenceNetwork
from ..network.weight_formats import FORMATS, key_of
from ..quantization.layouts import is_quantized
from ..quantization.stored import read_mark
from ..speech.wav2vec2 import load_speech_encoder
from ..text import TextEncoder
from .layout import vae_layout
from .loading import fill_transformers, load_vae, open_model


@dataclass(frozen=True)
class Hallo3:
    """The networks of one model. Calling `text_encoder` loads the text encoder, for prompts.

    Frames are decoded in `tiles` x `tiles` tiles, one after the other. `rows` is the batch size of
    the denoiser: 2 computes both branches of classifier-free guidance at once.
    """

    denoiser: Denoiser
    reference_network: ReferenceNetwork
    audio_projector: AudioProjector
    vae: AutoencoderKLCogVideoX
    speech_encoder: Wav2Vec2Model
    text_encoder: Callable[[], TextEncoder]
    placement: Placement = field(default_factory=Placement)
    tiles: int = 1
    rows: int = 1

    @property
    def config(self) -> Hallo3Config:
        return self.denoiser.config

    @property
    def device(self) -> torch.device:
        return self.placement.device

    @property
    def dtype(self) -> torch.dtype:
        return self.denoiser.embed.position.dtype

    def working(self, *networks: nn.Module) -> AbstractContextManager:
        """A context in which networks are on the device, if they are not always there."""
        return self.placement.working(*networks)

    def to(self, dtype: torch.dtype) -> "Hallo3":
        """Convert all networks except the speech encoder to `dtype`, in place."""
        for network in (self.denoiser, self.reference_network, self.audio_projector, self.vae):
            nn.Module.to(network, dtype)  # diffusers' own `to` warns of an empty list
        return self

    def placed(self, device: torch.device, plan: MemoryPlan | None = None) -> "Hallo3":
        """The model on a device: all networks, or as `plan` says."""
        placement = Placement(device, plan is not None and plan.in_turn)
        for network, stage in ((self.denoiser, "sampling"), (self.reference_network, "portrait")):
            placement.add(network, network.layers[: plan.streamed(stage)] if plan else ())
        for whole in (self.audio_projector, self.vae, self.speech_encoder):
            placement.add(whole)
        tiles, rows = (plan.tiles, plan.rows) if plan else (1, 1)
        return replace(self, placement=placement, tiles=tiles, rows=rows)

    @classmethod
    def from_folder(cls, path: Path, dtype: torch.dtype = torch.float32) -> "Hallo3":
        """Load the model at `path`, its folder or its weights file (see `find_files`), on the CPU.

        Raises `InputError` if a file is missing, damaged or the wrong one.
        """
        files, opened = open_model(path)
        transformers = fill_transformers(opened, dtype, files.transformers)
        speech_encoder = load_speech_encoder(files.speech_encoder)
        wanted, found = transformers[0].config.audio_channels, speech_encoder.config.hidden_size
        if found != wanted:
            raise InputError(
                f"The speech encoder in {files.speech_encoder} has {found} channels, but "
                f"the model needs {wanted}: put wav2vec2-base-960h there."
            )
        return cls(
            *transformers,
            load_vae(files.vae, dtype),
            speech_encoder,
            lambda: TextEncoder.load(files.text_encoder, dtype, transformers[0].config.text_width),
        )


def plan_for(
    path: Path | None, kind: str, free: float, offload: bool = True, voices: int = BRANCHES
) -> MemoryPlan:
    """The memory plan of the model at `path`, or of the released model if `path` is None.

    `kind` is the dtype of weights and computation; quantised weights stay so. `free` is in bytes.
    See `plan_memory`, also for the errors.
    """
    if path is None:
        config = Hallo3Config()
        with torch.device("meta"):
            autoencoder = vae.autoencoder(**vae.RELEASED)
        return plan_memory(config, autoencoder, kind, free, offload, voices=voices)
    files, (weights, config, layouts) = open_model(path)
    autoencoder, _ = vae_layout(read_weights(files.vae), files.vae)
    size = FORMATS[kind].dtype.itemsize
    quantized = [theirs for theirs in layouts[0].values() if is_quantized(weights[theirs])]
    if quantized:
        kind = key_of(read_mark(weights, name)[0] for name in quantized)
    return plan_memory(config, autoencoder, kind, free, offload, size, voices=voices)
