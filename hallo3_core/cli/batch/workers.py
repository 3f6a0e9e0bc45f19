"""The workers of a batch. Each holds a model and does one job after the other.

Without Ray, this process is the only worker. With Ray, each is a process, on this machine or on
others.
"""

import argparse
import logging
import os
import signal
import socket
import time
import traceback
from contextlib import chdir
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from ...errors import InputError
from ...model.hallo3 import Hallo3
from .. import PACKAGE, animate
from .jobs import Job

ROOT = Path(__file__).parents[3]
INSTALL = "pip install -r requirements-batch.txt"
LEAST_STORE = 100_000_000
"""Bytes that Ray keeps for objects on this machine. Jobs are a few kilobytes."""
DIED = "The worker ended in the middle: it was killed, or its machine has no memory left."

logger = logging.getLogger(__name__)


class Result(NamedTuple):
    """How long a job took, in seconds, the sentence that says why it failed, and warnings."""

    seconds: float
    error: str = ""
    warnings: str = ""


class Warnings(logging.Handler):
    """Keeps the warnings of a job. They would disturb the progress bar."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.texts[record.getMessage()] = None

    def __enter__(self) -> "Warnings":
        PACKAGE.addHandler(self)
        return self

    def __exit__(self, *error) -> None:
        PACKAGE.removeHandler(self)


class Done(NamedTuple):
    """A job that a worker ended."""

    job: Job
    worker: str
    result: Result


class Workers(Protocol):
    """Workers by name. The `free` ones can be given a job; `alive` is the number of all."""

    free: list[str]

    @property
    def alive(self) -> int: ...

    def start(self, worker: str, job: Job) -> None:
        """Give a free worker a job."""

    def next(self) -> Done | None:
        """Wait for a worker. None if it did no job but became free."""

    def close(self) -> None:
        """End the workers."""


class Worker:
    """Does jobs, with the model that the last job needed."""

    def __init__(self):
        self.wanted: tuple = ()
        self.model: Hallo3 | None = None

    def ready(self) -> None:
        """Returns when the worker has started."""

    def work(self, job: Job) -> Result:
        """Make the video of a job."""
        start, error = time.perf_counter(), ""
        with Warnings() as warnings:
            try:
                with chdir(job.folder):
                    animate.make_video(job.options, self.load)
            except InputError as wrong:
                error = f"{wrong}"
            except Exception as failure:
                traceback.print_exc()
                error = f"{type(failure).__name__}: {failure}"
        return Result(time.perf_counter() - start, error, " ".join(warnings.texts))

    def load(self, options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Hallo3:
        """The model for a job. It is loaded if it is not the one of the job before."""
        wanted = (*animate.model_choice(options), device, dtype)
        if self.model is None or wanted != self.wanted:
            self.model = None  # two models may not fit into memory
            self.model, self.wanted = animate.load_model(options, device, dtype), wanted
        return self.model


class ThisProcess:
    """The only worker is this process."""

    def __init__(self):
        self.worker, self.free, self.alive = Worker(), ["1"], 1
        self.jobs: list[Job] = []

    def start(self, worker: str, job: Job) -> None:
        self.free.remove(worker)
        self.jobs.append(job)

    def next(self) -> Done:
        job = self.jobs.pop()
        result = self.worker.work(job)
        self.free.append("1")
        return Done(job, "1", result)

    def close(self) -> None:
        self.worker.model = None


class RayWorkers:
    """Processes that Ray starts: one for each card, or `number` of them.

    Without an `address`, Ray starts on this machine, for this batch. If a worker dies, another one
    replaces it.
    """

    def __init__(self, address: str | None, number: int | None):
        try:
            import ray
        except ImportError:
            raise InputError(
                f"Several workers need Ray, which is not installed: {INSTALL}, or give --workers 1."
            ) from None
        self.ray = ray
        join(ray, address, number)
        cards = int(ray.cluster_resources().get("GPU", 0))
        needs = {"num_gpus": 1} if cards else {"num_cpus": 1}
        self.worker: Any = ray.remote(Worker).options(**needs)
        self.free: list[str] = []
        self.actors: dict[str, Any] = {}
        self.pending: dict[Any, tuple[str, Job | None, float]] = {}
        self.names = map(str, count(1))
        for _ in range(number or cards or 1):
            self._hire()

    @property
    def alive(self) -> int:
        starting = sum(job is None for _, job, _ in self.pending.values())
        return len(self.actors) - starting

    def _hire(self) -> None:
        """Start a worker. It is free when it says that it is ready."""
        name = next(self.names)
        self.actors[name] = actor = self.worker.remote()
        self.pending[actor.ready.remote()] = name, None, time.perf_counter()

    def start(self, worker: str, job: Job) -> None:
        self.free.remove(worker)
        task = self.actors[worker].work.remote(job)
        self.pending[task] = worker, job, time.perf_counter()

    def next(self) -> Done | None:
        (task,), _ = self.ray.wait(list(self.pending), num_returns=1)
        name, job, start = self.pending.pop(task)
        try:
            result = self.ray.get(task)
        except self.ray.exceptions.RayActorError as error:
            del self.actors[name]
            if job is None:
                self._not_started(error)
                return None
            self._hire()
            return Done(job, name, Result(time.perf_counter() - start, DIED))
        self.free.append(name)
        return Done(job, name, result) if job else None

    def _not_started(self, error: Exception) -> None:
        """Go on without a worker that could not start, if there are others."""
        reason = f"{error}".strip().splitlines()[-1]
        logger.warning("A worker could not start: %s", reason)
        if not self.actors:
            raise InputError(f"No worker could start ({reason}): see Ray's log.") from error

    def close(self) -> None:
        self.ray.shutdown()


def join(ray, address: str | None, number: int | None) -> None:
    """Join the Ray at `address`, or start one here. Raises `InputError` if there is none."""
    check_address(address or "")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    kept = {name: value for name, value in os.environ.items() if name.startswith("HALLO3_")}
    path = os.pathsep.join(filter(None, (f"{ROOT}", os.environ.get("PYTHONPATH"))))
    started = {"include_dashboard": False, "object_store_memory": LEAST_STORE, "num_cpus": number}
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address or "local",
            runtime_env={"env_vars": {**kept, "PYTHONPATH": path}},
            logging_level=logging.ERROR,
            log_to_driver=False,
            **({} if address else started),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = f"{error}".strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"Ray at {address or 'this machine'} cannot be used ({reason}): check its address and "
            "its token."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, terminated)  # Ray's own would not say what is done


def check_address(address: str) -> None:
    """Raise `InputError` if nothing answers at HOST:PORT. Ray itself would wait for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"There is no Ray at {address} ({error}): check the address.") from error
