"""The number of new frames of a segment, stored inside its latents.

Only the last segment of a speech has fewer than 47 new frames. Its latents have the usual shape.
ComfyUI's Save Latent, Load Latent and Rebatch Latents keep only the tensor of a LATENT. So the
count is stored in the tensor: in the lowest bits of its first 56 values, after a mark. A value
changes by its lowest bit at most, which is a rounding error.
"""

import numpy as np
import torch
from torch import Tensor

MARK = b"Hallo3"
BITS = 8 * (len(MARK) + 1)
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
"""The integer dtype of the same size as each float dtype, to read and write single bits."""


def write_new_frames(latents: Tensor, count: int) -> Tensor:
    """Return a copy of `latents` (1, ...) that stores the number of new frames, 1 to 47.

    `latents` are float32, float16 or bfloat16.
    """
    bits = torch.from_numpy(np.unpackbits(np.frombuffer(MARK + bytes([count]), np.uint8)))
    latents = latents.clone(memory_format=torch.contiguous_format)
    numbers = latents.view(INTEGERS[latents.dtype]).flatten()[:BITS]
    numbers.copy_(numbers & ~1 | bits.to(numbers))
    return latents


def read_new_frames(latents: Tensor) -> int | None:
    """Read the number that `write_new_frames` wrote, or None if there is none.

    It also finds the number if half precision was converted to float32 later.
    """
    first = latents.flatten()[:BITS].cpu()
    for dtype, integer in INTEGERS.items():
        numbers = first.to(dtype)
        bits = (numbers.view(integer) & 1).numpy().astype(np.uint8)
        said = np.packbits(bits).tobytes()
        if torch.equal(numbers.to(first), first) and said.startswith(MARK):
            return said[-1]
    return None
