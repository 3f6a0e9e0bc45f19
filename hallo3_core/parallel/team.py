"""The processes of one clip, one for each card. `torchrun` starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup, init_device_mesh

from ..errors import InputError
from .chunks import Relay

PATIENCE = timedelta(days=1)
"""How long a card waits for the leader, which also reads, encodes and writes."""


def processes() -> int:
    """How many processes torchrun has started. 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def leads() -> bool:
    """Whether this process reads the inputs and writes the video."""
    return processes() == 1 or os.environ["RANK"] == "0"


def own_device(name: str | None) -> str:
    """The name of this process's card. `name` is the kind of device that was asked for, or None.

    Raises `InputError` if the machine has too few cards, or if one card was asked for.
    """
    kind = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cpu":
        return kind
    if ":" in kind:
        raise InputError(
            f"--device {kind} is one card, but torchrun has started {processes()} processes: leave "
            "it out."
        )
    wanted = int(os.environ["LOCAL_WORLD_SIZE"])
    there = torch.get_device_module(kind).device_count()
    if 0 < there < wanted:
        raise InputError(
            f"torchrun has started {wanted} processes on a machine with {there} cards: give "
            f"--nproc-per-node {there}."
        )
    return f"{kind}:{os.environ['LOCAL_RANK']}"


class Team:
    """All processes of a clip. Process 0 leads: it tells the others what to compute."""

    def __init__(self, device: torch.device):
        self.device, self.size = device, dist.get_world_size()
        everyone = dist.group.WORLD
        assert everyone is not None  # the process group was made before
        self.relay = Relay(everyone, (new_group(), new_group()))

    def arrange(self, groups: int) -> tuple[ProcessGroup, ProcessGroup]:
        """Arrange the cards in `groups` for the branches of guidance.

        Returns the group of cards that have the same tokens, and the one that has the same branch.
        """
        shape = groups, self.size // groups
        mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=("guidance", "tokens"))
        return mesh.get_group("guidance"), mesh.get_group("tokens")


def new_group() -> ProcessGroup:
    group = dist.new_group(timeout=PATIENCE)
    assert isinstance(group, ProcessGroup)  # this process is in it
    return group


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Join the other processes that torchrun has started.

    What is sent between cards does not go through main memory. Announcements do.
    """
    backend = "gloo"
    if device.type != "cpu":
        torch.get_device_module(device).set_device(device)
        backend = f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"
    dist.init_process_group(backend, timeout=PATIENCE)
    yield Team(device)
    dist.destroy_process_group()  # not after an error: others may not answer any more
