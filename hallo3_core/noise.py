"""All random numbers of a video, and the order in which they are drawn.

They come from one seed, through independent streams. They are drawn on the CPU in float32, so they
are the same on every device. A segment can be computed again without the segments before it:

| stream         | seeded with                      | draws, in order                          |
|----------------|----------------------------------|------------------------------------------|
| reference      | hash of seed                     | posterior noise of the reference latents |
| motion, i      | hash of seed + i                 | pixel mask (uniform), posterior noise    |
| initial, i     | seed + i                         | initial latents                          |
| source, i      | hash of seed + i                 | posterior noise of a source's latents    |
| steps, i       | hash of seed + i                 | one per step but the last (SDE sampler)  |

i is the index of the segment. `initial` gives the same numbers as `torch.manual_seed(seed + i)` and
ComfyUI's RandomNoise.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, Protocol

import torch
from torch import Tensor

Purpose = Literal["reference", "motion", "initial", "source", "steps"]


class Stream(Protocol):
    """A sequence of random numbers, float32 on the CPU."""

    def normal(self, *shape: int) -> Tensor: ...

    def uniform(self, *shape: int) -> Tensor: ...


class Noise(Protocol):
    """The random numbers of a video: a stream for each purpose and segment."""

    def stream(self, purpose: Purpose, segment: int = 0) -> Stream: ...


class SeededStream:
    """The random numbers of torch's CPU generator for `seed`."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)


@dataclass(frozen=True)
class SeededNoise:
    """The random numbers of a video with `seed`."""

    seed: int

    def stream(self, purpose: Purpose, segment: int = 0) -> SeededStream:
        seed = (self.seed + segment) % 2**64
        if purpose != "initial":
            # the CPU generator uses only 32 bits of its seed
            seed = int.from_bytes(sha256(f"{purpose} {seed}".encode()).digest()[:4], "little")
        return SeededStream(seed)
