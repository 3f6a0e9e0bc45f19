"""Decodes the chunks of a video on several cards at the same time.

A chunk needs nothing of the chunk before but the last frames that enter each causal convolution. So
each card takes another chunk, and every convolution gets these frames from one card and passes its
own on to the next. A card is at most one layer behind the one before it. No number changes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.distributed as dist
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from ..allocator import steady_memory
from ..autoencoder.vae import chunk_spans, frames_of_chunk
from ..memory.device import enough_memory
from ..network.config import SPACE_COMPRESSION
from .wire import broadcast, receive, send


def causal_convolutions(decoder: nn.Module) -> list[nn.Module]:
    """The layers that keep frames for the next chunk. Those of one frame keep nothing."""

    def keeps(module: nn.Module) -> bool:
        conv = getattr(module, "conv", None)
        return isinstance(conv, nn.Conv3d) and conv.kernel_size[0] > 1

    return [module for module in decoder.modules() if keeps(module)]


class Relay:
    """Decodes like `decode_chunks`, on all cards of `group`. They all get all chunks.

    Chunk i is on card i modulo their number. `ways` are two groups of the same cards: what goes
    from an even chunk to an odd one must not wait for what goes the other way.
    """

    def __init__(self, group: ProcessGroup, ways: tuple[ProcessGroup, ProcessGroup]):
        self.group, self.ways = group, ways
        self.size, self.rank = group.size(), group.rank()

    def __call__(self, vae: AutoencoderKLCogVideoX, latents: Tensor) -> Iterator[Tensor]:
        spans = chunk_spans(vae, latents.shape[2])
        decoded = {}
        with enough_memory("decode on several cards", "start again on one card"):
            for i in range(self.rank, len(spans), self.size):
                with self.passing(vae.decoder, i, last=i == len(spans) - 1), steady_memory():
                    decoded[i] = vae.decoder(latents[:, :, spans[i]])[0].contiguous()
        batch, _, _, height, width = latents.shape
        for i, span in enumerate(spans):
            frames = frames_of_chunk(span.stop - span.start)
            size = SPACE_COMPRESSION * height, SPACE_COMPRESSION * width
            pixels = decoded.pop(i, None)
            if pixels is None:
                pixels = latents.new_empty(batch, 3, frames, *size)
            yield broadcast(pixels, i % self.size, self.group).float()

    @contextmanager
    def passing(self, decoder: nn.Module, chunk: int, last: bool) -> Iterator[None]:
        """Let the convolutions of `chunk` get their frames from the chunk before, and pass them on.

        A card that takes several chunks may read the messages for the next one later. So nobody
        waits for them before the end of this context.
        """
        sending: list[tuple[dist.Work, Tensor]] = []

        def get(conv: Any, inputs: tuple, options: dict[str, Any]) -> tuple:
            batch, channels, _, *size = inputs[0].shape
            before = inputs[0].new_empty(batch, channels, conv.conv.kernel_size[0] - 1, *size)
            receive(before, (chunk - 1) % self.size, self.ways[(chunk - 1) % 2])
            return inputs, options | {"conv_cache": before}

        def pass_on(conv: nn.Module, inputs: tuple, outputs: tuple) -> None:
            kept = outputs[1].contiguous()
            sending.append((send(kept, (chunk + 1) % self.size, self.ways[chunk % 2]), kept))

        with ExitStack() as stack:
            for conv in causal_convolutions(decoder):
                if chunk > 0:
                    hook = conv.register_forward_pre_hook(get, with_kwargs=True)
                    stack.callback(hook.remove)
                if not last:
                    stack.callback(conv.register_forward_hook(pass_on).remove)
            yield
        for work, _ in sending:
            work.wait()
