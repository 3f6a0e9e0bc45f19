"""How many new frames a segment has, written into its latents.

Only the last segment of a speech has fewer than 47, and its latents do not look different.
ComfyUI's Save Latent, Load Latent and Rebatch Latents keep the numbers of a LATENT and nothing
beside them, so the count is put there: into the lowest bits of the first 56 numbers, after a mark
that no others have. Each of them changes by that bit at most, which is a rounding error.
"""

import numpy as np
import torch
from torch import Tensor

MARK = b"Hallo3"
BITS = 8 * (len(MARK) + 1)
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
"""What numbers are seen as, to reach their bits."""


def write_new_frames(latents: Tensor, count: int) -> Tensor:
    """A copy of `latents` (1, ...) that says how many new frames its segment has, 1 to 47."""
    bits = torch.from_numpy(np.unpackbits(np.frombuffer(MARK + bytes([count]), np.uint8)))
    latents = latents.clone(memory_format=torch.contiguous_format)
    numbers = latents.view(INTEGERS[latents.dtype]).flatten()[:BITS]
    numbers.copy_(numbers & ~1 | bits.to(numbers))
    return latents


def read_new_frames(latents: Tensor) -> int | None:
    """What `write_new_frames` wrote, also if half precision became float32 since; or None."""
    first = latents.flatten()[:BITS].cpu()
    for dtype, integer in INTEGERS.items():
        numbers = first.to(dtype)
        bits = (numbers.view(integer) & 1).numpy().astype(np.uint8)
        said = np.packbits(bits).tobytes()
        if torch.equal(numbers.to(first), first) and said.startswith(MARK):
            return said[-1]
    return None
