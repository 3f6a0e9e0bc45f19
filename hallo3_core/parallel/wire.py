"""What the cards of a clip send to each other. If one has ended, all of these raise `CardLost`.

Groups are those of `torch.distributed`. Cards have the numbers that they have in their group.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from ..errors import CardLost


def lost() -> CardLost:
    """The error for the end of another process.

    From here on, torchrun's signal to end does not disturb the closing of files.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return CardLost("Another process of this run has ended, so this one stops, too.")


@contextmanager
def connected() -> Iterator[None]:
    """Raise `CardLost` where torch.distributed says that another process is not there."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise lost() from error


def exchange(x: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> Tensor:
    """Send a part of `x` (numbers,) to each card of the group, and receive one from each.

    `sent` and `received` are the lengths of the parts.
    """
    found = x.new_empty(sum(received))
    with connected():
        dist.all_to_all_single(found, x, received, sent, group=group)
    return found


def gather(x: Tensor, group: ProcessGroup) -> list[Tensor]:
    """The tensors of all cards of the group, each with the shape of `x`."""
    found = [torch.empty_like(x) for _ in range(group.size())]
    with connected():
        dist.all_gather(found, x, group=group)
    return found


def broadcast(x: Tensor, source: int, group: ProcessGroup) -> Tensor:
    """Write the `x` of one card into the `x` of all cards of the group."""
    with connected():
        dist.broadcast(x, dist.get_global_rank(group, source), group=group)
    return x


def send(x: Tensor, to: int, group: ProcessGroup) -> dist.Work:
    """Begin to send `x` to a card. It must not change until the result has been waited for."""
    with connected():
        work = dist.isend(x, dist.get_global_rank(group, to), group=group)
        assert work is not None  # this process is in the group
        return work


def receive(x: Tensor, source: int, group: ProcessGroup) -> Tensor:
    """Write what a card sends into `x`."""
    with connected():
        dist.recv(x, dist.get_global_rank(group, source), group=group)
    return x


def announce(message: Any = None) -> Any:
    """Card 0 gives a message to all others. Returns it on all cards; tensors are on the CPU."""
    box = [message]
    with connected():
        dist.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]


def largest(numbers: list[int]) -> list[int]:
    """The largest of each number, over all cards."""
    most = torch.tensor(numbers)
    with connected():
        dist.all_reduce(most, dist.ReduceOp.MAX)
    return most.tolist()
