"""The video autoencoder as ComfyUI's VAE, and what the core's functions take in its place."""

import math
from types import SimpleNamespace

import comfy.ldm.cogvideo.vae
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn

from ...hallo3_core.animate import decode_images
from ...hallo3_core.errors import InputError
from ...hallo3_core.vae import LATENT_SCALE, decode


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
        self.memory_used_encode = _memory_used
        self.memory_used_decode = lambda shape, dtype: _memory_used(
            (*shape[:2], 9, shape[3] * 8, shape[4] * 8), dtype
        )
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


def _memory_used(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes for (batch, channels, frames, height, width) pixels: about 20 full-size maps of 128."""
    return 20 * 128 * math.prod(shape[2:]) * comfy.model_management.dtype_size(dtype)


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


def open_vae(vae: comfy.sd.VAE) -> AutoencoderKLCogVideoX | StockAutoencoder:
    """The autoencoder of a VAE, on its device, for the core's functions.

    Raises `InputError` if it is not a CogVideoX VAE.
    """
    module = vae.first_stage_model
    if isinstance(module, Autoencoder):
        height, width = 480, 720
        comfy.model_management.load_models_gpu(
            [vae.patcher], memory_required=_memory_used((1, 3, 9, height, width), vae.vae_dtype)
        )
        return module.vae
    if isinstance(module, comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX):
        return StockAutoencoder(vae)
    raise InputError(
        f"This VAE is a {type(module).__name__} and not CogVideoX's: connect Load Hallo3 VAE."
    )


@torch.no_grad()
def decode_latent(vae: comfy.sd.VAE, samples: Tensor, frames: int) -> Tensor:
    """The first `frames` images (frames, height, width, 3) of a LATENT's samples, on the CPU."""
    autoencoder = open_vae(vae)
    if isinstance(autoencoder, StockAutoencoder):
        return vae.decode(samples)[0][:frames]
    latents = samples.to(autoencoder.device) * LATENT_SCALE
    return decode_images(autoencoder, latents, frames).to(vae.output_device)
