"""How Animate Portrait and Redub make segments: with the MODEL and the VAE on their inputs."""

from dataclasses import astuple, dataclass, replace
from functools import partial

from torch import Tensor

from ..hallo3_core.animate import seconds_to_decode
from ..hallo3_core.noise import SeededNoise
from ..hallo3_core.portrait.encode import Identity
from ..hallo3_core.sampling.inpainting import Source
from ..hallo3_core.settings import Settings
from ..hallo3_core.speech.dialogue import Dialogue
from ..hallo3_core.speech.encode import Speech
from ..hallo3_core.store.fingerprint import fingerprint
from .host.fingerprint import model_parts, parts_of, vae_parts
from .host.sampling import sample_segment
from .host.time_left import ClipTime
from .host.vae import decode_latent, encode_latent
from .sampling import condition, prompts_of
from .video import extend


@dataclass(frozen=True)
class NodeAnimator:
    """An `Animator` of the core, from the inputs of a node. It tells `clip` of its progress."""

    model: object
    vae: object
    identity: Identity
    speech: Speech | Dialogue
    positive: list | None
    settings: Settings
    clip: ClipTime

    def decides(self) -> tuple:
        networks = model_parts(self.model), vae_parts(self.vae)
        return "comfyui", networks, self.identity, astuple(self.settings)

    def prompt(self, index: int) -> str | None:
        """The fingerprint of the conditioning that holds in segment `index`."""
        holding = prompts_of(self.positive, index)
        return fingerprint(holding, parts_of) if holding else None

    def sample(
        self, index: int, motion: Tensor, seed: int | None = None, source: Source | None = None
    ) -> Tensor:
        settings = self.settings if seed is None else replace(self.settings, seed=seed)
        if self.clip.decoding is None:
            decode = partial(decode_latent, self.vae)
            self.clip.decoding = seconds_to_decode(decode, self.identity)
        self.clip.start(index)
        positive, negative, latent = condition(
            self.model, self.identity, self.speech, index, self.positive, motion, self.settings
        )
        if source:
            latent |= {"samples": source.latents, "noise_mask": source.mask}
        latent = sample_segment(
            self.model,
            positive,
            negative,
            latent,
            settings=settings,
            index=index,
            clip=self.clip,
            strength=source.strength if source else 1.0,
        )
        return latent["samples"]

    def decode(self, index: int, latents: Tensor, count: int) -> Tensor:
        self.clip.decode()
        return decode_latent(self.vae, latents, count)

    def encode(self, index: int, frames: Tensor) -> Tensor:
        draws = SeededNoise(self.settings.seed).stream("source", index)
        return encode_latent(self.vae, frames, draws)

    def extend(self, index: int, frames: Tensor) -> Tensor:
        settings = self.settings
        return extend(frames, self.vae, self.identity, settings.seed, index, settings.colour_anchor)

    def shown(self, frames: Tensor) -> Tensor:
        return frames
