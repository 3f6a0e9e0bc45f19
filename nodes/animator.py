"""How Animate Portrait makes its segments: with the MODEL and the VAE that it was given."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..hallo3_core.animate import seconds_to_decode
from ..hallo3_core.portrait.encode import Identity
from ..hallo3_core.sampling.guidance import Interval
from ..hallo3_core.speech.encode import Speech
from .host.fingerprint import model_parts, vae_parts
from .host.sampling import sample_segment
from .host.time_left import ClipTime
from .host.vae import decode_latent
from .sampling import condition
from .video import extend


@dataclass(frozen=True)
class NodeAnimator:
    """An `Animator` of the core, from a node's inputs; `clip` is told how far it is."""

    model: object
    vae: object
    identity: Identity
    speech: Speech
    positive: list | None
    steps: int
    guidance: float
    sampler: str
    seed: int
    interval: Interval
    clip: ClipTime

    def decides(self) -> tuple:
        """All that decides the segments of the clip, but the speech."""
        settings = (self.steps, self.guidance, self.sampler, self.seed, self.interval)
        networks = model_parts(self.model), vae_parts(self.vae)
        return "comfyui", networks, self.identity, self.positive, settings

    def sample(self, index: int, motion: Tensor) -> Tensor:
        if self.clip.decoding is None:
            decode = partial(decode_latent, self.vae)
            self.clip.decoding = seconds_to_decode(decode, self.identity)
        self.clip.start(index)
        latent = sample_segment(
            self.model,
            *condition(self.model, self.identity, self.speech, index, self.positive, motion),
            seed=(self.seed + index) % 2**64,
            steps=self.steps,
            guidance=self.guidance,
            sampler=self.sampler,
            interval=self.interval,
            index=index,
            clip=self.clip,
        )
        return latent["samples"]

    def decode(self, index: int, latents: Tensor, count: int) -> Tensor:
        self.clip.decode()
        return decode_latent(self.vae, latents, count)

    def extend(self, index: int, frames: Tensor) -> Tensor:
        return extend(frames, self.vae, self.identity, self.seed, index)
