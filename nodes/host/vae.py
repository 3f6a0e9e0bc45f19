"""The video autoencoder as ComfyUI's VAE, and what the core's functions take in its place."""

import logging
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import comfy.ldm.cogvideo.vae
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn

from ...hallo3_core.animate import decode_images
from ...hallo3_core.config import MOTION_FRAMES
from ...hallo3_core.errors import InputError
from ...hallo3_core.memory_plan import GB, choose_tiles, decoding_bytes, encoding_bytes
from ...hallo3_core.vae import LATENT_SCALE, decode

logger = logging.getLogger(__name__)


class Autoencoder(nn.Module):
    """diffusers' autoencoder with the two calls that ComfyUI's VAE makes."""

    def __init__(self, vae: AutoencoderKLCogVideoX):
        super().__init__()
        self.vae = vae

    def encode(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent_dist.mean

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat(list(decode(self.vae, latents * LATENT_SCALE)), dim=2)


class Hallo3VAE(comfy.sd.VAE):
    """A stock VAE around `Autoencoder`: stock nodes encode and decode with it."""

    def __init__(self, vae: AutoencoderKLCogVideoX):
        self.first_stage_model = Autoencoder(vae).eval()
        self.working_dtypes = [torch.bfloat16, torch.float16, torch.float32]
        self.latent_channels = vae.config.latent_channels
        self.latent_dim = 3
        self.output_channels = 3
        self.downscale_ratio = (lambda frames: max(0, math.floor((frames + 3) / 4)), 8, 8)
        self.downscale_index_formula = (4, 8, 8)
        self.upscale_ratio = (lambda frames: max(0, frames * 4 - 3), 8, 8)
        self.upscale_index_formula = (4, 8, 8)
        self.process_input = lambda image: image * 2 - 1
        self.process_output = lambda image: image.add_(1).div_(2).clamp_(0, 1)
        self.memory_used_encode = partial(memory_to_encode, vae)
        self.memory_used_decode = partial(memory_to_decode, vae)
        self.pad_channel_value = None
        self.crop_input = True
        self.handles_tiling = self.not_video = self.disable_offload = False
        self.format_encoded = self.size = None
        self.audio_sample_rate = 44100
        self.device = comfy.model_management.vae_device()
        self.output_device = comfy.model_management.intermediate_device()
        self.vae_dtype = comfy.model_management.vae_dtype(self.device, self.working_dtypes)
        nn.Module.to(self.first_stage_model, self.vae_dtype)
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model,
            load_device=self.device,
            offload_device=comfy.model_management.vae_offload_device(),
        )
        self.model_size()


def memory_to_encode(
    vae: AutoencoderKLCogVideoX, shape: tuple[int, ...], dtype: torch.dtype
) -> float:
    """Bytes to encode pixels (batch, 3, frames, height, width)."""
    size = comfy.model_management.dtype_size(dtype)
    return encoding_bytes(vae.config.block_out_channels[0], *shape[-3:], size)


def memory_to_decode(
    vae: AutoencoderKLCogVideoX, shape: tuple[int, ...], dtype: torch.dtype
) -> float:
    """Bytes to decode latents (batch, 16, latent frames, height, width), which is streamed."""
    size = comfy.model_management.dtype_size(dtype)
    return decoding_bytes(vae.config.block_out_channels[0], *shape[-2:], size)


class StockAutoencoder:
    """ComfyUI's own CogVideoX VAE, behind the part of diffusers' that the core's `encode` uses.

    It gives the mean of the posterior and not a sample of it.
    """

    def __init__(self, vae: comfy.sd.VAE):
        self.vae = vae
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        mean = self.vae.encode(pixels[0].permute(1, 2, 3, 0) / 2 + 0.5).float()
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=torch.zeros_like(mean)))


def open_encoder(
    vae: comfy.sd.VAE, height: int, width: int
) -> AutoencoderKLCogVideoX | StockAutoencoder:
    """The autoencoder of a VAE, on its device, to encode three frames of that size in the core.

    Raises `InputError` if it is not a CogVideoX VAE.
    """
    return _open(vae, memory_to_encode, (1, 3, MOTION_FRAMES + 1, height, width))


def _open(
    vae: comfy.sd.VAE, memory: Callable[..., float], shape: tuple[int, ...]
) -> AutoencoderKLCogVideoX | StockAutoencoder:
    module = vae.first_stage_model
    if isinstance(module, Autoencoder):
        needed = memory(module.vae, shape, vae.vae_dtype)
        comfy.model_management.load_models_gpu([vae.patcher], memory_required=needed)
        return module.vae
    if isinstance(module, comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX):
        return StockAutoencoder(vae)
    raise InputError(
        f"This VAE is a {type(module).__name__} and not CogVideoX's: connect Load Hallo3 VAE."
    )


@torch.no_grad()
def decode_latent(vae: comfy.sd.VAE, samples: Tensor, frames: int) -> Tensor:
    """The first `frames` images (frames, height, width, 3) of a LATENT's samples, on the CPU.

    Whole if there is the memory for it, else in tiles.
    """
    autoencoder = _open(vae, memory_to_decode, samples.shape)
    if isinstance(autoencoder, StockAutoencoder):
        return vae.decode(samples)[0][:frames]
    channels = autoencoder.config.block_out_channels[0]
    size = comfy.model_management.dtype_size(vae.vae_dtype)
    free = comfy.model_management.get_free_memory(vae.device)
    tiles = choose_tiles(channels, *samples.shape[-2:], size, free)
    if tiles > 1:
        logger.warning(
            "%.1f GB are free: decoding in %d x %d tiles, which may show.", free / GB, tiles, tiles
        )
    return decode_images(autoencoder, samples * LATENT_SCALE, frames, tiles).to(vae.output_device)
