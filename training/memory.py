"""What a training step takes of a graphics card, counted on tensors without contents."""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from hallo3_core.memory.need import SLACK
from hallo3_core.network.config import AUDIO_LAYERS, AUDIO_WINDOW, LATENT_FRAMES, SEGMENT_FRAMES
from hallo3_core.network.layers import ScaledLinear, attention, rotary_table
from tests.peak import Peak

from .networks import Batch, Networks

AVERAGE, MOMENTS, STEP = 4, 8, 4
"""Bytes for each number that is trained: its running average, what AdamW remembers of it, and what
AdamW takes while it makes a step."""


class LikeACard(TorchFunctionMode):
    """Mixed precision on the CPU as it is on a card, where norms are computed in float32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.layer_norm:
            x, shape, *affine, epsilon, cudnn = args
            args = x.float(), shape, *(value.float() for value in affine), epsilon, cudnn
        return function(*args, **(kwargs or {}))


def step_bytes(networks: Networks, batch: int) -> float:
    """Of networks on the meta device that are ready to be trained, with so many examples at a time.

    Weights, gradients, average and optimizer, and what layers keep and compute; and `SLACK` for
    what allocators lose.
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
    """Which has mixed precision and attention that keeps no scores, as the meta device has not."""
    for module in network.modules():
        for name, value in [*module.named_parameters(recurse=False)]:
            moved = torch.empty(value.shape, dtype=value.dtype)
            module.register_parameter(name, nn.Parameter(moved, value.requires_grad))
        for name, value in [*module.named_buffers(recurse=False)]:
            module.register_buffer(name, torch.empty(value.shape, dtype=value.dtype))


def empty_batch(networks: Networks, batch: int) -> Batch:
    """Examples with captions, float32."""
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


def keep_in_fp8(networks: Networks) -> None:
    """The matrices of layers, of networks on the meta device, as converted files have them."""
    for name, module in [*networks.named_modules()]:
        if isinstance(module, nn.Linear) and ".layers." in name:
            bias = module.bias
            scaled = ScaledLinear(module.in_features, module.out_features, True, device="meta")
            scaled.weight = nn.Parameter(module.weight.to(torch.float8_e4m3fn), False)
            scaled.bias = bias
            networks.set_submodule(name, scaled)
