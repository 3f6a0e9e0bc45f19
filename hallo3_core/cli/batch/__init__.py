"""`batch`: do the jobs of a table, on one or more workers."""

import argparse
from contextlib import chdir, closing
from math import inf
from pathlib import Path

import torch

from ...errors import BAD_INPUT, InputError
from ...media.outputs import claimed, new_folder
from ...parallel.team import leads, processes
from ..animate import checked_settings
from .clips import CutJob, cut
from .jobs import Job, in_row, read_jobs
from .schedule import BatchProgress, do_all
from .table import DONE, FAILED, States
from .workers import RayWorkers, Result, ThisProcess, Workers

STOPPED = "Stopped before the first job began."


def add(parser: argparse.ArgumentParser) -> None:
    argument = parser.add_argument
    argument(
        "table",
        type=Path,
        metavar="JOBS.csv",
        help="a row for each video, and a column for each option of animate",
    )
    argument("--output", type=Path, required=True, metavar="FOLDER", help="for the videos")
    argument("--overwrite", action="store_true", help="replace existing files")
    argument("--ray", metavar="ADDRESS", help="a running Ray (default: this machine)")
    argument("--workers", type=int, help="how many jobs at once (default: one for each card, or 1)")
    argument(
        "--cut",
        type=float,
        metavar="SECONDS",
        help="cut longer speeches at pauses; the face jumps where the clips are joined",
    )
    argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    if processes() > 1:
        return refuse_torchrun()
    if options.workers is not None and options.workers < 1:
        raise InputError(f"The number of workers is {options.workers}: give 1 or more.")
    if options.cut is not None and not options.cut > 0:
        raise InputError(f"The longest clip is {options.cut} s: give more than 0.")
    folder = options.output.absolute()
    jobs = read_jobs(options.table, folder, options.cut)
    with new_folder(folder):
        file = folder / f"{options.table.stem}.states.csv"
        with claimed(file):
            states = States(file, jobs)
            new = [job for job in jobs if states.of(job).state != DONE]
            for job in new:
                check(job, options.overwrite or states.made_before(job))
            try:
                do(new, states, options)
            except KeyboardInterrupt:
                states.stopped()
                raise KeyboardInterrupt(
                    f"Stopped. {states.count(jobs, DONE)} of {len(jobs)} jobs are done: {file}. "
                    "Start again to continue."
                ) from None
            finally:
                states.write()
    return report(jobs, len(new), states)


def refuse_torchrun() -> int:
    """Raise `InputError` in process 0. The other processes end without a word."""
    if not leads():
        return BAD_INPUT
    raise InputError(
        f"torchrun has started {processes()} processes, and each would do all jobs: start batch "
        "without torchrun; --workers says how many jobs run at once."
    )


def check(job: Job, overwrite: bool) -> None:
    """Raise `InputError` if the settings of a job are wrong, or its video cannot be written."""
    job.options.overwrite = overwrite
    with in_row(job.row), chdir(job.folder), new_folder(job.output.parent):
        checked_settings(job.options)


def do(jobs: list[Job], states: States, options: argparse.Namespace) -> None:
    """Do the jobs that are not done. Long ones are cut before, and joined after."""
    cuts: list[CutJob] = []
    for job in jobs:
        with chdir(job.folder):
            cuts += filter(None, [cut(job, options.cut or inf)])
    clips = [clip for each in cuts for clip in each.clips]
    for clip in clips:
        states.add(clip)
    whole = [each.whole for each in cuts]
    todo = [job for job in (*jobs, *clips) if job not in whole and states.of(job).state != DONE]
    states.write()
    if todo:
        with (
            closing(hire(options)) as workers,
            BatchProgress(todo, options.quiet) as progress,
        ):
            do_all(todo, workers, states, progress)
    for each in cuts:
        join(each, states)


def join(cut_job: CutJob, states: States) -> None:
    """Join the clips of a job if they are all done."""
    lines = [states.of(clip) for clip in cut_job.clips]
    errors = [line.error for line in lines if line.state == FAILED]
    seconds = sum(float(line.seconds) for line in lines)
    try:
        if errors:
            raise InputError(errors[0])
        cut_job.join()
    except InputError as error:
        states.ended(cut_job.whole, FAILED, Result(seconds, f"{error}"))
        return
    for clip in cut_job.clips:
        states.remove(clip)
    states.ended(cut_job.whole, DONE, Result(seconds))


def hire(options: argparse.Namespace) -> Workers:
    """The workers that were asked for."""
    here = options.workers or torch.cuda.device_count() or 1
    if here == 1 and not options.ray:
        return ThisProcess()
    return RayWorkers(options.ray, options.workers)


def report(jobs: list[Job], new: int, states: States) -> int:
    """Print what became of the jobs. Returns the exit status."""
    for job in jobs:
        if states.of(job).state == FAILED:
            print(f"Row {job.row} failed: {states.of(job).error}")
    failed = states.count(jobs, FAILED)
    print(
        f"{states.file}: {states.count(jobs, DONE)} of {len(jobs)} jobs are done, "
        f"{len(jobs) - new} of them before this start; {failed} failed"
    )
    return BAD_INPUT if failed else 0
