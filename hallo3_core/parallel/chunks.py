"""Decodes the chunks of a video on several cards at the same time.

A chunk needs nothing of the chunk before but the last frames that enter each causal convolution. So
each card takes another chunk, and every convolution gets these frames from one card and passes its
own on to the next. A card is at most one layer behind the one before it. No number changes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.func import functional_call

from ..allocator import steady_memory
from ..autoencoder.vae import chunk_spans, frames_of_chunk
from ..network.config import SPACE_COMPRESSION
from .wire import broadcast, largest, receive, send


class OneRanOut(torch.OutOfMemoryError):
    """A card ran out of memory while all decoded. It is raised on all of them."""


def causal_convolutions(decoder: nn.Module) -> list[nn.Module]:
    """The layers that keep frames for the next chunk. Those of one frame keep nothing."""

    def keeps(module: nn.Module) -> bool:
        conv = getattr(module, "conv", None)
        return isinstance(conv, nn.Conv3d) and conv.kernel_size[0] > 1

    return [module for module in decoder.modules() if keeps(module)]


class Relay:
    """Decodes like `decode_chunks`, on all cards of `group`. They all get all chunks.

    Chunk i is on card i modulo their number. `ways` are two groups of the same cards: what goes
    from an even chunk to an odd one must not wait for what goes the other way. If one of the cards
    runs out of memory, all raise `OneRanOut`.
    """

    def __init__(self, group: ProcessGroup, ways: tuple[ProcessGroup, ProcessGroup]):
        self.group, self.ways = group, ways
        self.size, self.rank = group.size(), group.rank()

    def __call__(self, vae: AutoencoderKLCogVideoX, latents: Tensor) -> Iterator[Tensor]:
        spans = chunk_spans(vae, latents.shape[2])
        decoded = self.own_chunks(vae.decoder, [latents[:, :, span] for span in spans])
        (failed,) = largest([int(decoded is None)])
        if failed:
            raise OneRanOut("A card ran out of memory.")
        assert decoded is not None
        batch, _, _, height, width = latents.shape
        for i, span in enumerate(spans):
            frames = frames_of_chunk(span.stop - span.start)
            size = SPACE_COMPRESSION * height, SPACE_COMPRESSION * width
            pixels = decoded.pop(i, None)
            if pixels is None:
                pixels = latents.new_empty(batch, 3, frames, *size)
            yield broadcast(pixels, i % self.size, self.group).float()

    def own_chunks(self, decoder: nn.Module, chunks: list[Tensor]) -> dict[int, Tensor] | None:
        """The pixels of the chunks of this card, or None if its memory runs out.

        Then this card still receives and sends what the others wait for, but without contents.
        """
        decoded: dict[int, Tensor] | None = {}
        for i in range(self.rank, len(chunks), self.size):
            passing = Passing(self, i, last=i == len(chunks) - 1, like=chunks[i])
            if decoded is not None:
                try:
                    with passing.of(decoder), steady_memory():
                        decoded[i] = decoder(chunks[i])[0].contiguous()
                except torch.OutOfMemoryError:
                    decoded = None
            if decoded is None:
                empty = {name: value.to("meta") for name, value in decoder.state_dict().items()}
                with passing.of(decoder):
                    functional_call(decoder, empty, chunks[i].to("meta"))
            passing.wait()
        return decoded


class Passing:
    """What the convolutions of a chunk get from the chunk before, and pass on to the next one.

    `like` has the device and the dtype of all that. A card that takes several chunks may read the
    messages for the next one later. So nobody waits for them before the end of the chunk.
    """

    def __init__(self, relay: Relay, chunk: int, last: bool, like: Tensor):
        self.first, self.last, self.like = chunk == 0, last, like
        self.source = (chunk - 1) % relay.size, relay.ways[(chunk - 1) % 2]
        self.target = (chunk + 1) % relay.size, relay.ways[chunk % 2]
        self.received = 0
        self.sent: list[tuple[dist.Work, Tensor]] = []

    @contextmanager
    def of(self, decoder: nn.Module) -> Iterator[None]:
        """Let the convolutions of `decoder` get their frames and pass them on.

        If the chunk is begun once more, without contents, what was passed already is left out.
        """
        getting, giving = count(), count()

        def get(conv: Any, inputs: tuple, options: dict[str, Any]) -> tuple:
            batch, channels, _, *size = inputs[0].shape
            shape = batch, channels, conv.conv.kernel_size[0] - 1, *size
            before = self.like.new_empty(shape)
            if next(getting) == self.received:
                receive(before, *self.source)
                self.received += 1
            return inputs, options | {"conv_cache": before.to(inputs[0].device)}

        def pass_on(conv: nn.Module, inputs: tuple, outputs: tuple) -> None:
            if next(giving) == len(self.sent):
                kept = outputs[1]
                kept = self.like.new_zeros(kept.shape) if kept.is_meta else kept.contiguous()
                self.sent.append((send(kept, *self.target), kept))

        with ExitStack() as stack:
            for conv in causal_convolutions(decoder):
                if not self.first:
                    hook = conv.register_forward_pre_hook(get, with_kwargs=True)
                    stack.callback(hook.remove)
                if not self.last:
                    stack.callback(conv.register_forward_hook(pass_on).remove)
            yield

    def wait(self) -> None:
        """Wait until all that was sent has arrived."""
        for work, _ in self.sent:
            work.wait()
