"""`animate` on several cards, with a process on each: `torchrun -m hallo3_core animate`."""

import argparse
import logging
import signal
from collections.abc import Callable
from functools import partial

import torch

from ...errors import BAD_INPUT, INTERRUPTED, CardLost, InputError
from ...memory.device import choose_device, choose_dtype
from ...model.hallo3 import Hallo3
from ...parallel.lead import LeadingAnimator, dismiss, follow
from ...parallel.team import Team, joined, leads, own_device
from ...parallel.wire import lost
from .. import PACKAGE
from .writing import Written

Make = Callable[..., Written]
"""Does a job, such as `make_video`."""
Load = Callable[[argparse.Namespace, torch.device, torch.dtype], Hallo3]
"""Returns the model that the options ask for, such as `load_model`."""


def run_on_cards(options: argparse.Namespace, make: Make, load: Load) -> int:
    """Do the job in process 0, and a part of its computation in each of the others.

    Only process 0 prints. Another process says only why it cannot go on. Raises `InputError`.
    """
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, another_has_ended)
    try:
        options.device = own_device(options.device)
        device = choose_device(options.device)
    except InputError:
        if leads():
            raise
        return BAD_INPUT
    with joined(device) as team:
        return lead(team, options, make, load) if leads() else help_out(team, options, load)


def lead(team: Team, options: argparse.Namespace, make: Make, load: Load) -> int:
    wanted = {"yes": True, "no": False}.get(options.split_guidance)
    written = make(options, load, partial(LeadingAnimator, team, wanted))
    dismiss()
    print("\n".join(written.lines()))
    return 0


def help_out(team: Team, options: argparse.Namespace, load: Load) -> int:
    options.quiet = True
    PACKAGE.setLevel(logging.ERROR)  # process 0 warns of the same
    device = team.device
    try:
        follow(team, lambda: load(options, device, choose_dtype(options.dtype, device)))
    except CardLost:
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def interrupted(*_) -> None:
    """After Ctrl-C, torchrun interrupts each process once more. Files are closed meanwhile."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def another_has_ended(*_) -> None:
    """torchrun ends all processes if one has ended."""
    raise lost()
