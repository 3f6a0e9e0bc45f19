"""The video autoencoder as ComfyUI's VAE, and ComfyUI's own VAE for functions of the core."""

import logging
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import torch
from comfy.ldm.cogvideo import vae as cogvideo
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn

from ...hallo3_core.autoencoder.images import decode_images, encode_images
from ...hallo3_core.autoencoder.tiles import TILE_UNITS
from ...hallo3_core.autoencoder.vae import LATENT_SCALE, decode, decode_in_tiles, encode_in_tiles
from ...hallo3_core.errors import InputError
from ...hallo3_core.memory.need import decoding_bytes, encoding_bytes
from ...hallo3_core.memory.plan import GB, choose_tiles
from ...hallo3_core.network.config import (
    MOTION_FRAMES,
    SPACE_COMPRESSION,
    TIME_COMPRESSION,
    Size,
)
from ...hallo3_core.noise import Stream
from .out_of_memory import VAE_ON_CPU, enough_memory
from .whole import WholePatcher

logger = logging.getLogger(__name__)

TO_ENCODE = enough_memory("encode pictures", VAE_ON_CPU)
TO_DECODE = enough_memory("decode a segment", VAE_ON_CPU)

TILE = 64
"""The side of a tile in latents, if no size is given."""


class Autoencoder(nn.Module):
    """diffusers' autoencoder, with the methods that ComfyUI's VAE calls.

    Pixels are (batch, 3, frames, height, width) in [-1, 1]. Latents are (batch, 16, latent frames,
    height / 8, width / 8), not scaled.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX):
        super().__init__()
        self.vae = vae

    def encode(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent_dist.mean

    def decode(self, latents: Tensor) -> Tensor:
        chunks = decode(self.vae, latents * LATENT_SCALE)
        return first_alone(torch.cat(list(chunks), dim=2), latents)

    def encode_tiled(
        self, pixels: Tensor, tile_x: int = 0, tile_y: int = 0, overlap: int = 0, **time
    ) -> Tensor:
        """`encode` in tiles of `tile_y` x `tile_x` pixels.

        Tiles in time are not needed: the autoencoder encodes a few frames after the other.
        """
        sides = tile_y // SPACE_COMPRESSION, tile_x // SPACE_COMPRESSION
        return encode_in_tiles(self.vae, pixels, *_tiles(sides, overlap // SPACE_COMPRESSION))

    def decode_tiled(
        self, latents: Tensor, tile_x: int = 0, tile_y: int = 0, overlap: int = 0, **time
    ) -> Tensor:
        """`decode` in tiles of `tile_y` x `tile_x` latents."""
        tiles = _tiles((tile_y, tile_x), overlap)
        return first_alone(decode_in_tiles(self.vae, latents, *tiles), latents)


def first_alone(frames: Tensor, latents: Tensor) -> Tensor:
    """The frames that ComfyUI expects: one for the first latent frame, and four for every other.

    If the number of latent frames is even, the autoencoder makes four for the first one, too.
    """
    count = TIME_COMPRESSION * (latents.shape[2] - 1) + 1
    return frames[:, :, -count:]


def _tiles(sides: Size, overlap: int) -> tuple[Size, Size]:
    """Sides and overlaps (height, width) of tiles. Where none is given (0), the default is used."""
    height, width = (side or TILE for side in sides)
    across, along = (min(overlap, side // 2) or side // TILE_UNITS for side in (height, width))
    return (height, width), (across, along)


class Hallo3VAE(comfy.sd.VAE):
    """ComfyUI's VAE with our `Autoencoder` in it, so that stock nodes work with it.

    The parent's constructor recognises CogVideoX by the names of the weights, and sets every
    attribute that a VAE of ComfyUI has. It gets empty weights: our network replaces its network.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX):
        with torch.device("meta"):
            stock = cogvideo.AutoencoderKLCogVideoX(latent_channels=vae.config.latent_channels)
            super().__init__(sd=stock.state_dict())
        self.first_stage_model = Autoencoder(vae).eval()
        nn.Module.to(self.first_stage_model, self.vae_dtype)
        self.memory_used_encode = partial(memory_to_encode, vae)
        self.memory_used_decode = partial(memory_to_decode, vae)
        self.handles_tiling = True
        self.patcher = WholePatcher(
            self.first_stage_model,
            load_device=self.device,
            offload_device=comfy.model_management.vae_offload_device(),
        )
        self.size = None
        self.model_size()

    encode = TO_ENCODE(comfy.sd.VAE.encode)
    encode_tiled = TO_ENCODE(comfy.sd.VAE.encode_tiled)
    decode = TO_DECODE(comfy.sd.VAE.decode)
    decode_tiled = TO_DECODE(comfy.sd.VAE.decode_tiled)

    def get_sd(self) -> dict[str, Tensor]:
        """The weights under diffusers' names, which Load VAE and Load Hallo3 VAE read."""
        return self.first_stage_model.vae.state_dict()


def memory_to_encode(
    vae: AutoencoderKLCogVideoX, shape: tuple[int, ...], dtype: torch.dtype
) -> float:
    """Bytes to encode pixels (batch, 3, frames, height, width)."""
    size = comfy.model_management.dtype_size(dtype)
    frames, height, width = shape[-3:]
    return encoding_bytes(vae.config.block_out_channels[0], frames, height, width, size)


def memory_to_decode(
    vae: AutoencoderKLCogVideoX, shape: tuple[int, ...], dtype: torch.dtype
) -> float:
    """Bytes to decode latents (batch, 16, latent frames, height, width), a few at a time."""
    size = comfy.model_management.dtype_size(dtype)
    frames, height, width = shape[-3:]
    pixels = TIME_COMPRESSION * frames * SPACE_COMPRESSION**2 * height * width
    work = decoding_bytes(vae.config.block_out_channels[0], height, width, size)
    return work + 3 * pixels * torch.float32.itemsize


class StockAutoencoder:
    """ComfyUI's own CogVideoX VAE, with the methods of diffusers that the core's `encode` uses.

    It encodes to the mean of the posterior, and not to a sample.
    """

    def __init__(self, vae: comfy.sd.VAE):
        self.vae = vae
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        mean = self.vae.encode(pixels[0].permute(1, 2, 3, 0) / 2 + 0.5).float()
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=torch.zeros_like(mean)))


def open_encoder(
    vae: comfy.sd.VAE, height: int, width: int, frames: int = MOTION_FRAMES + 1
) -> AutoencoderKLCogVideoX | StockAutoencoder:
    """The autoencoder of a VAE on its device, with memory for so many frames of that size.

    Raises `InputError` if it is not a CogVideoX VAE.
    """
    return _open(vae, memory_to_encode, (1, 3, frames, height, width))


def _open(
    vae: comfy.sd.VAE, memory: Callable[..., float], shape: tuple[int, ...]
) -> AutoencoderKLCogVideoX | StockAutoencoder:
    module = vae.first_stage_model
    if isinstance(module, Autoencoder):
        needed = memory(module.vae, shape, vae.vae_dtype)
        comfy.model_management.load_models_gpu([vae.patcher], memory_required=needed)
        return module.vae
    if isinstance(module, cogvideo.AutoencoderKLCogVideoX):
        return StockAutoencoder(vae)
    raise InputError(
        f"This VAE is a {type(module).__name__} and not CogVideoX's: connect Load Hallo3 VAE."
    )


@TO_ENCODE
@torch.no_grad()
def encode_latent(vae: comfy.sd.VAE, frames: Tensor, noise: Stream) -> Tensor:
    """A LATENT's samples of the images (frames, height, width, 3) of a segment, on the CPU."""
    count, height, width = frames.shape[:3]
    encoder = open_encoder(vae, height, width, count)
    return encode_images(encoder, frames, noise) / LATENT_SCALE


@TO_DECODE
@torch.no_grad()
def decode_latent(vae: comfy.sd.VAE, samples: Tensor, frames: int) -> Tensor:
    """The first `frames` images (frames, height, width, 3) of a LATENT's samples, on the CPU.

    Without tiles if there is enough memory, otherwise in tiles.
    """
    autoencoder = _open(vae, memory_to_decode, samples.shape)
    if isinstance(autoencoder, StockAutoencoder):
        return vae.decode(samples)[0][:frames]
    channels = autoencoder.config.block_out_channels[0]
    size = comfy.model_management.dtype_size(vae.vae_dtype)
    free = comfy.model_management.get_free_memory(vae.device)
    height, width = samples.shape[-2:]
    tiles = choose_tiles(channels, height, width, size, free)
    if tiles > 1:
        logger.warning(
            "%.1f GB are free: decoding in %d x %d tiles. Their edges may be visible.",
            free / GB,
            tiles,
            tiles,
        )
    return decode_images(autoencoder, samples * LATENT_SCALE, frames, tiles).to(vae.output_device)
