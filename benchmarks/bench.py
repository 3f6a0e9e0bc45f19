"""The work that the benchmarks run, and how it is timed."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from hallo3_core.autoencoder import vae
from hallo3_core.autoencoder.images import decode_images
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import LATENT_FRAMES, MOTION_FRAMES, SEGMENT_FRAMES, Hallo3Config
from hallo3_core.network.transformer import Denoiser

from .published import PublishedDenoiser, Savings


@dataclass
class Bench:
    """Networks and inputs of a size. A call computes both branches of a guided step."""

    config: Hallo3Config
    sizes: dict
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self):
        torch.manual_seed(0)
        config = self.config
        with self.device:
            self.denoiser = self.make(Denoiser(config, dtype=self.dtype))
            self.projector = self.make(AudioProjector(config, dtype=self.dtype))
            self.lean = self.make(vae.autoencoder(**self.sizes))
            self.plain = self.make(AutoencoderKLCogVideoX(**self.sizes))
        shape = (config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width)
        self.latents, self.motion = self.noise(1, *shape), self.noise(1, *shape)
        text = self.noise(1, config.text_tokens, config.text_width)
        self.text = torch.cat([torch.zeros_like(text), text])
        self.features = [self.noise(1, config.frame_tokens, config.width)] * config.layers
        self.face = self.noise(1, config.face_channels)
        heard = self.noise(1, SEGMENT_FRAMES, 5, 12, config.audio_channels)
        self.windows = torch.cat([torch.zeros_like(heard), heard])
        self.pixels = self.noise(1, 3, MOTION_FRAMES + 1, *config.canvas)
        self.timestep = torch.tensor([500], device=self.device)

    def make(self, network: nn.Module) -> nn.Module:
        return nn.Module.to(network, self.device, self.dtype).eval().requires_grad_(False)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def published(self, savings: Savings) -> Callable[[], Tensor]:
        denoiser = PublishedDenoiser(self.denoiser, self.projector, savings)

        def twice(x: Tensor) -> Tensor:
            return x.expand(2, *x.shape[1:])

        return lambda: denoiser(
            twice(self.latents),
            twice(self.timestep),
            self.text,
            twice(self.motion),
            self.features,
            twice(self.face),
            self.windows,
        )

    def ours(self, batched: bool) -> Callable[[], Tensor]:
        """A guided step, with both branches in one batch or in two calls."""
        denoiser = self.denoiser
        reference = denoiser.reference_keys_values(self.features)
        face = denoiser.face_keys_values(self.face)
        rows = [slice(0, 2)] if batched else [slice(0, 1), slice(1, 2)]
        branches = [
            denoiser.conditions(
                self.text[row], self.motion, reference, face, self.projector(self.windows[row])
            )
            for row in rows
        ]
        calls = [(self.latents.expand(len(b.text), -1, -1, -1, -1), b) for b in branches]
        return lambda: torch.cat(
            [denoiser(x, self.timestep.expand(len(x)), given) for x, given in calls]
        )

    def once(self) -> Tensor:
        """Our work once for each segment: audio keys and values of both branches."""
        return self.denoiser.audio_keys_values(self.projector(self.windows))

    def plain_decode(self) -> Tensor:
        return self.plain.decode(self.latents / vae.LATENT_SCALE).sample

    def lean_decode(self) -> Tensor:
        return decode_images(self.lean, self.latents, SEGMENT_FRAMES)

    def encode(self) -> Tensor:
        return self.lean.encode(self.pixels).latent_dist.mean


@dataclass(frozen=True)
class Timing:
    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({min(self.seconds):.3f} to {max(self.seconds):.3f})"


def interleaved(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Seconds of each work. All run in turn in each round; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: Timing(seconds[1:]) for name, seconds in times.items()}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = min(interleaved({"product": lambda: a @ a}, 5)["product"].seconds)
    return 2 * side**3 / best


def flops(work: Callable[[], object]) -> int:
    """FLOP as torch counts them, plus attention on the CPU, which torch leaves out."""

    def attention(query, key, value, *_, out_shape=None, **options) -> int:
        return sdpa_flop_count(query, key, value)

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        work()
    return counter.get_total_flops()
