"""What a call of the denoiser takes, counted on the meta device: its tensors have no contents."""

from functools import partial

import torch
from torch.utils._pytree import tree_leaves

from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.transformer import Denoiser, run_layer
from training.peak import Peak

MIB = 2**20


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Its memory is its result; PyTorch has it on the CPU and on GPUs, but not without a device."""
    return torch.empty_like(query)


def denoiser_call(rows: int, dtype: torch.dtype, voices: int = 1) -> float:
    """Bytes that a call on `rows` videos takes at full size, and what is kept between calls.

    All layers are alike, so two of them show the peak; what is kept is of all 42, and of both
    branches of guidance. With several `voices`, a dialogue is sampled: `rows` is 1, and only one
    branch hears them.
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
        if voices > 1:
            weights = torch.empty(voices, 13, config.frame_tokens, dtype=dtype)
            several = audio.expand(voices, -1, -1, -1)
            branches[0] = denoiser.conditions(text, latents[:1], reference, face, several, weights)
        with Peak(denoiser) as peak:
            run = partial(run_layer, attend=flash_attention)
            denoiser(latents, torch.zeros(rows), branches[0], run)
    kept = tree_leaves([(branch.reference, branch.face, branch.audio) for branch in branches])
    tensors = [leaf for leaf in kept if isinstance(leaf, torch.Tensor)]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
    return peak.bytes + 21 * sum(storage.nbytes() for storage in storages.values())
