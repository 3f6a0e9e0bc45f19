"""Counting memory without a device: on the meta device tensors have sizes and no contents."""

import weakref
from functools import partial

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.transformer import Denoiser, run_layer

MIB = 2**20


class Peak(TorchDispatchMode):
    """Bytes of tensors that are alive at once, beside a network's own weights."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.weights = [parameter.untyped_storage() for parameter in network.parameters()]
        self.alive = dict.fromkeys((storage._cdata for storage in self.weights), 0)
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.see(tensor.untyped_storage())
        self.bytes = max(self.bytes, sum(self.alive.values()))
        return result

    def see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage._cdata)


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Its memory is its result; PyTorch has it on the CPU and on GPUs, but not without a device."""
    return torch.empty_like(query)


def denoiser_call(rows: int, dtype: torch.dtype) -> float:
    """Bytes that a call on `rows` videos takes at full size, and what is kept between calls.

    All layers are alike, so two of them show the peak; what is kept is of all 42, and of both
    branches of guidance.
    """
    config = Hallo3Config(layers=2)
    shape = (rows, 16, 13, 60, 90)
    with torch.device("meta"), torch.no_grad():
        denoiser = Denoiser(config, dtype=dtype)
        latents = torch.empty(shape, dtype=dtype)
        tokens = torch.empty(1, config.frame_tokens, config.width, dtype=dtype)
        audio = torch.empty(rows, 13, config.audio_tokens, config.audio_width, dtype=dtype)
        text = torch.empty(rows, config.text_tokens, config.text_width, dtype=dtype)
        reference = denoiser.reference_keys_values([tokens] * config.layers)
        face = denoiser.face_keys_values(torch.empty(1, config.face_channels, dtype=dtype))
        branches = [
            denoiser.conditions(text, latents[:1], reference, face, audio) for _ in range(2 // rows)
        ]
        run = partial(run_layer, attend=flash_attention)
        with Peak(denoiser) as peak:
            run = partial(run_layer, attend=flash_attention)
            denoiser(latents, torch.zeros(rows), branches[0], run)
    kept = tree_leaves([(branch.reference, branch.face, branch.audio) for branch in branches])
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in kept}
    return peak.bytes + 21 * sum(storage.nbytes() for storage in storages.values())
