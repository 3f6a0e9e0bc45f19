"""One clip on two cards: how much faster it is, what the cards send, and what each of them holds.

`python -m benchmarks.cards` starts two processes with one thread each. They take turns: process 0
alone, both with a branch of guidance each, and both with half of the tokens each. Wall times need a
quiet machine. The seconds of work, which no other program disturbs, do not have the waiting in
them.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hallo3_core import builtin
from hallo3_core.autoencoder.images import decode_images
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import LATENT_FRAMES, SEGMENT_FRAMES, Hallo3Config
from hallo3_core.network.transformer import Denoiser
from hallo3_core.parallel.lead import PartPredictor, Video
from hallo3_core.parallel.team import Team, joined
from hallo3_core.prediction import Predictor, Seen, SegmentInputs
from hallo3_core.settings import Settings
from hallo3_core.speech.dialogue import Voices
from training.peak import Peak

from .sizes import SIZES

MIB = 2**20


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def launch(count: int, *command: object, **options) -> list[subprocess.Popen]:
    """Start processes of Python with one thread each, as torchrun does. Rank 0 is the first."""
    port = free_port()
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "TORCHELASTIC_RUN_ID": "hallo3"}
    shared |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    started = []
    for rank in range(count):
        own = shared | {"RANK": rank, "LOCAL_RANK": rank}
        environment = os.environ | {name: str(value) for name, value in own.items()}
        words = [sys.executable, *map(str, command)]
        started.append(subprocess.Popen(words, env=environment, **options))
    return started


def exchanged_bytes(config: Hallo3Config, cards: int, size: int) -> int:
    """What the cards of a branch send to each other in a call of the denoiser, all together.

    Numbers have `size` bytes. This is the formula of docs/scale.md.
    """
    tokens = config.text_tokens + LATENT_FRAMES * config.frame_tokens
    attention = 4 * config.layers * tokens * config.width * (cards - 1) // cards
    part = -(-config.frame_tokens // cards)
    patch = 4 * config.latent_channels
    return size * (attention + cards * (cards - 1) * LATENT_FRAMES * part * patch)


def dealt_bytes(config: Hallo3Config, cards: int, branches: int = 2) -> int:
    """What the cards send each other of the branches' results in a step, in float32.

    `cards` share the tokens of each branch, and two groups of them share the branches.
    """
    grid = config.latent_height * config.latent_width
    return 4 * branches * cards * config.latent_channels * LATENT_FRAMES * grid


class Sent(TorchDispatchMode):
    """Counts the bytes that this process sends to others, in torch.distributed's own operators."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split(".")[0]
        if name == "c10d::alltoall_base_":
            group = dist.ProcessGroup.unbox(args[2])
            kept = args[4][group.rank()]
            self.bytes += (len(args[1]) - kept) * args[1].element_size()
        elif name == "c10d::allgather_":
            self.bytes += (len(args[0][0]) - 1) * args[1][0].nbytes
        elif name == "c10d::broadcast_":
            group = dist.ProcessGroup.unbox(args[1])
            if group.rank() == args[2]:
                self.bytes += (group.size() - 1) * args[0][0].nbytes
        return function(*args, **(kwargs or {}))


def random_model(config: Hallo3Config) -> Hallo3:
    """A model with random weights, and the built-in autoencoder. The same in all processes."""
    torch.manual_seed(0)
    networks = Denoiser(config), AudioProjector(config)
    for network in networks:
        network.eval().requires_grad_(False)
    return replace(builtin.load(), denoiser=networks[0], audio_projector=networks[1])


class Work:
    """A guided step of a random model, and decoding with the built-in autoencoder."""

    def __init__(self, team: Team, config: Hallo3Config):
        self.team, self.config, self.model = team, config, random_model(config)
        noise = torch.randn
        features = [noise(1, config.frame_tokens, config.width)] * config.layers
        self.seen = Seen(features, noise(1, config.face_channels), None)
        shape = config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width
        self.latents = noise(1, *shape)
        voices = Voices(noise(1, SEGMENT_FRAMES, 5, 12, config.audio_channels))
        self.inputs = SegmentInputs(noise(1, *shape), None, voices)
        self.small = noise(1, 16, LATENT_FRAMES, 16, 24)

    def predictor(self, groups: int) -> Predictor:
        """The one for so many groups of cards; for 0, the one of a single card."""
        if not groups:
            return Predictor(self.model, Settings(), self.seen)
        return PartPredictor(self.team, self.model, Video(Settings(), self.seen, groups))

    @contextmanager
    def step(self, groups: int):
        with self.predictor(groups).segment(self.inputs) as predict:
            yield lambda: predict(self.latents, torch.tensor(500))

    def decode(self, chunks: Callable | None) -> Tensor:
        own = {} if chunks is None else {"chunks": chunks}
        return decode_images(self.model.vae, self.small, SEGMENT_FRAMES, **own)


def timed(work: Callable[[], Tensor]) -> tuple[float, float]:
    """Wall seconds, and seconds of this process's own work."""
    wall, own = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - own


def report(name: str, times: list[tuple[float, float]], alone: list[tuple[float, float]]) -> str:
    cells = [name]
    for each, before in zip(zip(*times, strict=True), zip(*alone, strict=True), strict=True):
        middle = statistics.median(each)
        ratio = statistics.median(was / now for was, now in zip(before, each, strict=True))
        cells.append(f"{middle:.2f} ({min(each):.2f} to {max(each):.2f}), {ratio:.2f} times")
    return "| " + " | ".join(cells) + " |"


@torch.no_grad()
def job(rounds: int, layers: int) -> None:
    """The work of each of the processes. Process 0 prints."""
    small = {"audio_tokens": 4, "audio_width": 128, "text_width": 512, "layers": layers}
    with joined(torch.device("cpu")) as team:
        work = Work(team, replace(SIZES["mid"], **small))
        networks = nn.ModuleList([work.model.denoiser, work.model.audio_projector])
        leads, lines = dist.get_rank() == 0, []
        for groups in (0, 2, 1):
            with Peak(networks) as peak, Sent() as sent, work.step(groups) as step:
                step()
            lines.append(f"{groups}: {peak.bytes / MIB:.0f} MiB, sent {sent.bytes:,} bytes")
        if leads:
            print("groups of cards: memory of a card beside the weights, and what it sends a step")
            print("\n".join(lines), flush=True)
        times = {name: [] for name in ("one", "branches", "tokens", "decode", "decode on both")}
        with work.step(0) as alone, work.step(2) as branches, work.step(1) as tokens:
            for i in range(rounds + 1):
                for name, call, both in (
                    ("one", alone, False),
                    ("branches", branches, True),
                    ("tokens", tokens, True),
                    ("decode", lambda: work.decode(None), False),
                    ("decode on both", lambda: work.decode(team.relay), True),
                ):
                    dist.barrier()
                    if both or leads:
                        took = timed(call)
                        times[name] += [took] if i else []  # the first round warms up
        if leads:
            print("| | wall seconds | seconds of work of process 0 |\n|---|---|---|")
            for name, each in times.items():
                print(report(name, each, times["decode" if "decode" in name else "one"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args()
    if "RANK" in os.environ:
        job(options.rounds, options.layers)
        return
    words = ("--rounds", options.rounds, "--layers", options.layers)
    for process in launch(2, "-m", "benchmarks.cards", *words):
        process.wait()


if __name__ == "__main__":
    main()
