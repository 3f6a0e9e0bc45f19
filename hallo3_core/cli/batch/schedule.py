"""Who does which job, and when: the longest first, and a failed one again on another worker."""

import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from ...media.progress import in_words
from .jobs import Job
from .table import DONE, FAILED, WAITING, States
from .workers import Workers

TRIES = 2
"""How often a job is tried before it has failed."""
LAYOUT = "{l_bar}{bar}| {n}/{total} [{elapsed}{postfix}]"


class BatchProgress:
    """The progress bar of a batch. The time that is left follows the seconds of speech."""

    def __init__(
        self,
        jobs: list[Job],
        quiet: bool,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.left, self.made = sum(job.seconds for job in jobs), 0.0
        self.clock, self.began = clock, clock()
        self.bar = tqdm(
            total=len(jobs), desc="jobs", bar_format=LAYOUT, disable=quiet, mininterval=0
        )

    @property
    def seconds_left(self) -> float:
        """The estimate after the first job. Without any speech so far it is 0."""
        if not self.made:
            return 0.0
        return (self.clock() - self.began) * self.left / self.made

    def ended(self, job: Job) -> None:
        self.left -= job.seconds
        self.made += job.seconds
        self.bar.set_postfix_str(f"{in_words(self.seconds_left)} left", refresh=False)
        self.bar.update()

    def __enter__(self) -> "BatchProgress":
        return self

    def __exit__(self, *error) -> None:
        self.bar.close()


def do_all(jobs: list[Job], workers: Workers, states: States, progress: BatchProgress) -> None:
    """Give the jobs to the workers, and write what becomes of them."""
    waiting = sorted(jobs, key=lambda job: job.seconds, reverse=True)
    failed: dict[Path, str] = {}  # the worker on which a job failed
    running = 0
    while waiting or running:
        for worker in tuple(workers.free):
            others = workers.alive > 1
            fitting = (job for job in waiting if not (others and failed.get(job.output) == worker))
            if job := next(fitting, None):
                waiting.remove(job)
                states.started(job, worker)
                workers.start(worker, job)
                running += 1
        if done := workers.next():
            running -= 1
            job, worker, result = done
            again = result.error and int(states.of(job).tries) < TRIES
            states.ended(job, WAITING if again else FAILED if result.error else DONE, result)
            if again:
                failed[job.output] = worker
                job.options.overwrite = True  # what is there now comes from the first try
                waiting.insert(0, job)
            else:
                progress.ended(job)
