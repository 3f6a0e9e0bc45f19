"""A batch on two workers of Ray: what it makes after a kill, and how much faster it is than one.

`python -m benchmarks.batch` does 12 jobs, of which two are bad, and kills a worker in the middle.
Then it does the ten good ones on one worker and on two, without the store. Each worker has one
thread.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from hallo3_core import examples
from hallo3_core.cli.batch.jobs import Job, read_jobs
from hallo3_core.cli.batch.schedule import BatchProgress, do_all
from hallo3_core.cli.batch.table import States, read_lines
from hallo3_core.cli.batch.workers import RayWorkers
from hallo3_core.media.video import save_sound
from hallo3_core.sound.sound_file import read_sound

JOBS, BAD, WORKERS = 10, 2, 2


def write_table(folder: Path, bad: int, store: bool) -> Path:
    """A table of jobs with speech of 1 to 2 s. The bad ones have a portrait that is no picture."""
    speech = read_sound(examples.SPEECH)
    (folder / "broken.png").write_text("no picture")
    (folder / "me.png").write_bytes(examples.PORTRAIT.read_bytes())
    lines = ["portrait,speech,output,seed,no-store"]
    for index in range(JOBS + bad):
        sound = folder / f"{index}.wav"
        if not sound.exists():
            save_sound(speech.cut(0, 1 + index % 5 / 4), speech.rate, sound)
        portrait = "me.png" if index < JOBS else "broken.png"
        lines.append(f"{portrait},{sound.name},{index}.mp4,{index},{'no' if store else 'yes'}")
    table = folder / "jobs.csv"
    table.write_text("\n".join(lines), "utf-8")
    return table


def run(*words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "hallo3_core", *map(str, words), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def with_a_kill(folder: Path) -> None:
    """Do 12 jobs, kill a worker in the middle, and compare with single runs."""
    table, out = write_table(folder, BAD, store=True), folder / "out"
    command = ("batch", table, "--output", out, "--workers", WORKERS)
    batch, states = run(*command), out / "jobs.states.csv"
    killed = 0
    while batch.poll() is None:
        time.sleep(0.05)
        done = [line.state for line in read_lines(states).values()].count("done")
        if done >= JOBS // 2 and not killed:
            killed = kill_a_worker(batch.pid, out)
    print("\n".join(line for line in batch.stdout.read().splitlines() if "raylet" not in line))
    tries = Counter((line.state, line.tries) for line in read_lines(states).values())
    print(f"killed process {killed}; states and tries: {dict(tries)}")
    same = 0
    for job in read_jobs(table, out)[:JOBS]:
        seed, single = job.options.seed, folder / job.output.name
        sound = folder / job.options.speech
        words = ("--portrait", folder / "me.png", "--speech", sound, "--seed", seed)
        assert run("animate", *words, "--output", single, "--no-store").wait() == 0
        same += single.read_bytes() == job.output.read_bytes()
    print(f"{same} of {JOBS} videos equal those of single runs")
    again = run(*command)
    print("again:", again.communicate()[0].splitlines()[-1], flush=True)


def kill_a_worker(batch: int, out: Path) -> int:
    """Kill a process of the batch that writes a video now. Returns its id, 0 if there is none."""
    for process in psutil.Process(batch).children(recursive=True):
        try:
            if any(".unfinished" in file.path for file in process.open_files()):
                process.kill()
                return process.pid
        except psutil.Error:
            continue
    return 0


def seconds_on(number: int, jobs: list[Job], folder: Path) -> float:
    """How long `number` workers take for the jobs, when they have started and hold the model."""
    out = folder / f"on_{number}_{time.time_ns()}"
    out.mkdir()
    for job in jobs:
        job.options.output = out / job.output.name
    warm, rest = jobs[:number], jobs[number:]
    states = States(out / "states.csv", jobs)
    workers = RayWorkers(None, number)
    do_all(warm, workers, states, BatchProgress(warm, quiet=True))
    start = time.perf_counter()
    do_all(rest, workers, states, BatchProgress(rest, quiet=True))
    took = time.perf_counter() - start
    workers.close()
    assert states.count(jobs, "done") == len(jobs)
    return took / sum(job.seconds for job in rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="of the timing (%(default)s)")
    parser.add_argument("--only-timing", action="store_true", help="no kill")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HALLO3_STORE"] = str(folder / "segments")
        if not options.only_timing:
            with_a_kill(folder)
        jobs = read_jobs(write_table(folder, 0, store=False), folder)
        for _ in range(options.rounds):
            one, two = seconds_on(1, jobs, folder), seconds_on(WORKERS, jobs, folder)
            load = os.getloadavg()[0]
            print(
                f"seconds for a second of speech: {one:.2f} on one worker, {two:.2f} on two: "
                f"{one / two:.2f} times as fast; load {load:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
