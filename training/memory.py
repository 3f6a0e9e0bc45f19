"""How much memory of a card a training step takes, counted on tensors without contents."""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from hallo3_core.memory.need import SLACK
from hallo3_core.network.config import AUDIO_LAYERS, AUDIO_WINDOW, LATENT_FRAMES, SEGMENT_FRAMES
from hallo3_core.network.layers import attention, rotary_table
from hallo3_core.network.weight_formats import FORMATS, quantize_layers

from .networks import Batch, Networks
from .peak import Peak

AVERAGE, MOMENTS, STEP = 4, 8, 4
"""Bytes for each trained number: its moving average, AdamW's moments, and what AdamW takes while it
makes a step."""


class LikeACard(TorchFunctionMode):
    """Makes mixed precision on the CPU compute norms in float32, as a card does."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.layer_norm:
            x, shape, *affine, epsilon, cudnn = args
            args = x.float(), shape, *(value.float() for value in affine), epsilon, cudnn
        return function(*args, **(kwargs or {}))


def step_bytes(networks: Networks, batch: int) -> float:
    """Bytes that a step on `batch` examples takes.

    The networks are on the meta device and ready to be trained. Counts weights, gradients, average,
    optimizer, and what layers keep and compute; `SLACK` is for what allocators lose.
    """
    weights = sum(p.nbytes for p in (*networks.parameters(), *networks.buffers()))
    trained = sum(p.numel() for p in networks.parameters() if p.requires_grad)
    gradients = trained * torch.float32.itemsize
    rotary_table.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        put_on_cpu(networks)
        examples = empty_batch(networks, batch)
        with Peak(networks) as peak, LikeACard():
            with torch.autocast("cpu", torch.bfloat16):
                found = networks(examples, attention)
            (found.float() - examples.target).square().mean().backward()
    rotary_table.cache_clear()
    working = max(SLACK * peak.bytes, gradients + trained * STEP)
    return weights + trained * (AVERAGE + MOMENTS) + working


def put_on_cpu(network: nn.Module) -> None:
    """Move a network from the meta device to the CPU, as fake tensors.

    The CPU has mixed precision, and attention that keeps no scores. The meta device has neither.
    """
    for module in network.modules():
        for name, value in [*module.named_parameters(recurse=False)]:
            moved = torch.empty(value.shape, dtype=value.dtype)
            module.register_parameter(name, nn.Parameter(moved, value.requires_grad))
        for name, value in [*module.named_buffers(recurse=False)]:
            module.register_buffer(name, torch.empty(value.shape, dtype=value.dtype))


def empty_batch(networks: Networks, batch: int) -> Batch:
    """A batch of examples with captions, float32."""
    config = networks.config
    size = config.latent_height, config.latent_width

    def latents(frames: int) -> Tensor:
        return torch.empty(batch, config.latent_channels, frames, *size)

    return Batch(
        latents=latents(LATENT_FRAMES),
        timesteps=torch.empty(batch, dtype=torch.long),
        target=latents(LATENT_FRAMES),
        motion=latents(1),
        reference=latents(1),
        face=torch.empty(batch, config.face_channels),
        speech=torch.empty(
            batch, SEGMENT_FRAMES, AUDIO_WINDOW, AUDIO_LAYERS, config.audio_channels
        ),
        lips=torch.empty(batch, *size),
        text=torch.empty(batch, config.text_tokens, config.text_width),
    )


def quantize_matrices(networks: Networks) -> None:
    """Put the matrices of layers in fp8, as in converted files. Networks are on the meta device."""
    for network in (networks.denoiser, networks.reference_network):
        quantize_layers(network, FORMATS["fp8"])
