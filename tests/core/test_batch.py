"""The jobs of a table. The built-in model makes videos of less than a second in one step."""

import csv
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from batch_tables import GOOD, SECONDS, lay_out, table
from hallo3_core import cli as command_line
from hallo3_core.builtin import DRAWN_ONLY
from hallo3_core.cli import animate as animate_command
from hallo3_core.cli.batch import clips
from hallo3_core.cli.batch import workers as batch_workers
from hallo3_core.cli.batch.clips import pauses
from hallo3_core.cli.batch.jobs import read_jobs
from hallo3_core.cli.batch.schedule import BatchProgress, do_all
from hallo3_core.cli.batch.table import States
from hallo3_core.cli.batch.workers import Done, Result
from hallo3_core.errors import InputError
from hallo3_core.media.video import read_frames, save_sound
from hallo3_core.sound.sound_file import read_sound, seconds_in_header


@pytest.fixture
def folder(tmp_path) -> Path:
    lay_out(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command. Returns the exit status, the printed text and the error text."""

    def run(command: str, *words: object):
        monkeypatch.setattr(sys, "argv", ["hallo3_core", command, *map(str, words), "--quiet"])
        status = command_line.main()
        return status, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def states(folder: Path) -> dict[str, dict[str, str]]:
    """The lines of the table of states, by the name of the video."""
    with (folder / "out" / "jobs.states.csv").open(encoding="utf-8") as file:
        return {Path(line["output"]).stem: line for line in csv.DictReader(file)}


class Acted:
    """Workers that do nothing. `fails` says what goes wrong, by job and worker."""

    def __init__(self, number: int, fails: dict[tuple[str, str], str]):
        self.free, self.alive, self.fails = [f"{i + 1}" for i in range(number)], number, fails
        self.log: list[tuple[str, str]] = []
        self.running: list = []

    def start(self, worker, job):
        self.free.remove(worker)
        self.log.append((job.output.stem, worker))
        self.running.append((job, worker))

    def next(self):
        job, worker = self.running.pop(0)
        self.free.append(worker)
        error = self.fails.get((job.output.stem, worker)) or self.fails.get((job.output.stem, ""))
        return Done(job, worker, Result(1.5, error or ""))


def do(folder: Path, workers: Acted, *rows: str) -> dict[str, dict[str, str]]:
    (folder / "out").mkdir()
    jobs = read_jobs(table(folder, *rows), folder / "out")
    kept = States(folder / "out" / "jobs.states.csv", jobs)
    do_all(jobs, workers, kept, BatchProgress(jobs, quiet=True))
    return states(folder)


def test_the_longest_first_and_once_more_on_another_worker(folder):
    """`b` fails on the worker that gets it first, and `c` on all."""
    workers = Acted(2, {("b", "2"): "no memory", ("c", ""): "no face"})
    named = zip("dcba", SECONDS, strict=True)
    rows = (f"me.png,{name}.wav,{output}.mp4,1,0" for output, name in named)
    lines = do(folder, workers, *rows)
    order = [("a", "1"), ("b", "2"), ("c", "1"), ("d", "2"), ("b", "1"), ("c", "2")]
    assert workers.log == order
    assert {name: (line["state"], line["tries"]) for name, line in lines.items()} == {
        "a": ("done", "1"),
        "b": ("done", "2"),
        "c": ("failed", "2"),
        "d": ("done", "1"),
    }
    assert [lines[name]["error"] for name in "abcd"] == ["", "", "no face", ""]
    assert lines["a"]["seconds"] == "1.50"


def test_one_worker_tries_again_itself(folder):
    workers = Acted(1, {("a", ""): "no face"})
    lines = do(folder, workers, "me.png,long.wav,a.mp4,1,0", "me.png,short.wav,b.mp4,1,0")
    assert workers.log == [("a", "1"), ("a", "1"), ("b", "1")]
    assert [line["state"] for line in lines.values()] == ["failed", "done"]


def test_the_time_left_follows_the_speech(folder):
    """After 1 of 1.28 s of speech in 8 s, 0.28 s are left."""
    now = iter((0.0, 8.0))
    rows = "me.png,middle.wav,a.mp4,1,0", "me.png,longest.wav,b.mp4,1,0"
    jobs = read_jobs(table(folder, *rows), folder)
    progress = BatchProgress(jobs, quiet=True, clock=lambda: next(now))
    progress.left, progress.made = jobs[0].seconds, jobs[1].seconds
    assert progress.seconds_left == pytest.approx(8 * 0.28, rel=0.01)


def test_the_videos_are_those_of_animate(run, folder, monkeypatch):
    """The model is loaded once. Nothing is done again, but a row that was changed."""
    load, loaded = animate_command.load_model, []
    monkeypatch.setattr(animate_command, "load_model", lambda *a: loaded.append(1) or load(*a))
    rows = [
        "me.png,short.wav,a.mp4,1,3",
        "broken.png,short.wav,b.mp4,1,0",
        "me.png,long.wav,sub/c.mp4,1,0",
    ]
    command = "batch", table(folder, *rows), "--output", folder / "out"
    status, printed, _ = run(*command, "--workers", 1)
    assert status == 2
    assert printed.splitlines() == [
        "Row 3 failed: broken.png cannot be read as a picture (cannot identify image file "
        "'broken.png'): save it as PNG or JPEG.",
        f"{folder / 'out' / 'jobs.states.csv'}: 2 of 3 jobs are done, 0 of them before this "
        "start; 1 failed",
    ]
    assert len(loaded) == 1
    assert [states(folder)[name]["tries"] for name in "abc"] == ["1", "2", "1"]
    assert states(folder)["a"]["warnings"] == DRAWN_ONLY
    videos = [folder / "out" / "a.mp4", folder / "out" / "sub" / "c.mp4"]
    for video, speech, seed in zip(videos, ("short", "long"), (3, 0), strict=True):
        words = ["--portrait", folder / "me.png", "--speech", folder / f"{speech}.wav"]
        words += ["--steps", 1, "--seed", seed, "--output", folder / "single.mp4", "--no-store"]
        assert run("animate", *words, "--overwrite")[0] == 0
        assert (folder / "single.mp4").read_bytes() == video.read_bytes()
    make, made = animate_command.make_video, []
    monkeypatch.setattr(
        animate_command, "make_video", lambda job, load: made.append(job.output) or make(job, load)
    )
    table(folder, rows[0], rows[2])
    written = videos[0].stat().st_mtime_ns
    status, printed, _ = run(*command)
    assert (status, made) == (0, [])
    assert "2 of 2 jobs are done, 2 of them before this start; 0 failed" in printed
    table(folder, rows[0], rows[2].replace(",0", ",9"))
    content = videos[1].read_bytes()
    assert run(*command)[0] == 0
    assert made == videos[1:]
    assert videos[0].stat().st_mtime_ns == written
    assert videos[1].read_bytes() != content


def test_files_of_the_user_stay(run, folder):
    (folder / "out").mkdir()
    mine = folder / "out" / "a.mp4"
    mine.write_bytes(b"mine")
    status, _, complaints = run("batch", table(folder, GOOD), "--output", folder / "out")
    assert status == 2
    assert f"Row 2: {mine} exists already: give --overwrite" in complaints
    assert [path.name for path in (folder / "out").iterdir()] == ["a.mp4"]
    assert mine.read_bytes() == b"mine"


def test_ctrl_c_says_what_is_done(run, folder, monkeypatch):
    def stop_at_b(options, load):
        if options.output.stem == "b":
            raise KeyboardInterrupt
        options.output.write_bytes(b"video")

    monkeypatch.setattr(animate_command, "make_video", stop_at_b)
    rows = "me.png,short.wav,b.mp4,1,0", "me.png,long.wav,a.mp4,1,0"
    status, printed, _ = run("batch", table(folder, *rows), "--output", folder / "out")
    assert status == 130
    assert printed.startswith("Stopped. 1 of 2 jobs are done: ")
    assert {name: line["state"] for name, line in states(folder).items()} == {
        "b": "waiting",
        "a": "done",
    }


def test_a_worker_loads_a_model_when_it_needs_another(monkeypatch):
    loaded = []
    monkeypatch.setattr(animate_command, "load_model", lambda job, *_: loaded.append(job) or job)
    worker = batch_workers.Worker()
    parse = command_line.parse
    jobs = [parse(["animate", *words]) for words in ([], ["--seed", "4"], ["--undistilled"])]
    for job in jobs:
        worker.load(job, torch.device("cpu"), torch.float32)
    assert loaded == [jobs[0], jobs[2]]


def test_several_workers_need_ray(run, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    command = "batch", table(folder, GOOD), "--output", folder / "out", "--workers"
    status, _, complaints = run(*command, 2)
    assert status == 2
    assert complaints == (
        "error: Several workers need Ray, which is not installed: pip install -r "
        "requirements-batch.txt, or give --workers 1.\n"
    )
    assert "The number of workers is 0" in run(*command, 0)[2]


def test_an_address_where_nobody_answers():
    with pytest.raises(InputError, match=r"There is no Ray at 127\.0\.0\.1:1 .*: check"):
        batch_workers.check_address("127.0.0.1:1")
    batch_workers.check_address("auto")


def test_where_a_speech_is_cut():
    """In the middle of pauses, at whole frames. Clips have at most 10 s if there are pauses."""
    spans = [(0.0, 4.0), (5.0, 8.0), (8.5, 25.0), (26.0, 29.0), (30.0, 31.01), (31.99, 33.0)]
    assert pauses(spans, 33.0, 10.0) == [206, 638]
    assert pauses(spans, 33.0, 5.0) == [112, 206, 638, 738]
    assert pauses(spans, 33.0, 40.0) == []
    assert pauses([(0.0, 33.0)], 33.0, 10.0) == []


def test_a_long_speech_is_cut_and_joined(run, folder, monkeypatch):
    """The video of 25 frames is made of clips of 14 and 11. Each begins at the portrait."""
    monkeypatch.setattr(clips, "speech_spans", lambda waveform: [(0, 0.4), (0.72, 1.0)])
    rows = f"{GOOD[:-1]}2", "me.png,longest.wav,b.mp4,1,2"
    command = "batch", table(folder, *rows), "--output", folder / "out", "--cut", 0.6
    status, printed, _ = run(*command)
    assert status == 0
    assert "2 of 2 jobs are done, 0 of them before this start; 0 failed" in printed
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == ["a.mp4", "b.mp4", "jobs.states.csv"]
    assert {name: line["state"] for name, line in states(folder).items()} == {
        "a": "done",
        "b": "done",
    }
    joined = np.stack(list(read_frames(folder / "out" / "b.mp4")))
    assert len(joined) == 25
    assert seconds_in_header(folder / "out" / "b.mp4") == pytest.approx(1, abs=0.05)
    speech = read_sound(folder / "longest.wav").prepared()
    border = 14 * 640
    for part, shown in ((speech[:border], joined[:14]), (speech[border:], joined[14:])):
        save_sound(part[None], 16_000, folder / "part.wav", overwrite=True)
        words = ["--portrait", folder / "me.png", "--speech", folder / "part.wav", "--steps", 1]
        words += ["--seed", 2, "--output", folder / "part.mp4", "--overwrite"]
        assert run("animate", *words)[0] == 0
        assert np.array_equal(np.stack(list(read_frames(folder / "part.mp4"))), shown)
    assert "2 of them before this start" in run(*command)[1]


def kill_the_worker_of(unfinished: Path, killed: list[int]) -> None:
    """Kill the process that writes a file, as soon as there is one."""
    while not unfinished.exists():
        time.sleep(0.02)
    workers = psutil.Process().children(recursive=True)
    while not killed and unfinished.exists():  # it is opened a moment later
        for process in workers:
            with suppress(psutil.Error):
                if f"{unfinished}" in [file.path for file in process.open_files()]:
                    process.kill()
                    killed.append(process.pid)


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_ray_replaces_a_worker_that_is_killed(run, folder):
    """Two real workers. The one with the longest job is killed in the middle."""
    pytest.importorskip("ray")
    rows = [f"me.png,{name}.wav,{name}.mp4,1,0" for name in ("short", "longest")]
    killed: list[int] = []
    unfinished = folder / "out" / "longest.unfinished.mp4"
    killer = threading.Thread(target=kill_the_worker_of, args=(unfinished, killed), daemon=True)
    killer.start()
    file = table(folder, *rows, "broken.png,short.wav,bad.mp4,1,0")
    command = "batch", file, "--output", folder / "out", "--workers", 2
    status, printed, _ = run(*command)
    assert len(killed) == 1
    assert status == 2
    assert "\nRow 4 failed: broken.png cannot be read as a picture" in printed
    lines = states(folder)
    assert {name: (line["state"], line["tries"]) for name, line in lines.items()} == {
        "short": ("done", "1"),
        "longest": ("done", "2"),
        "bad": ("failed", "2"),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have
    words = ["--portrait", folder / "me.png", "--speech", folder / "longest.wav", "--steps", 1]
    assert run("animate", *words, "--output", folder / "single.mp4", "--no-store")[0] == 0
    torch.set_num_threads(threads)
    made = folder / "out" / "longest.mp4"
    assert (folder / "single.mp4").read_bytes() == made.read_bytes()


def test_torchrun_is_refused_in_one_sentence(folder, run, monkeypatch):
    """Each process would do all jobs. Only process 0 says so."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    words = "batch", table(folder, GOOD), "--output", folder / "out"
    assert run(*words) == (
        2,
        "",
        "error: torchrun has started 2 processes, and each would do all jobs: start batch without "
        "torchrun; --workers says how many jobs run at once.\n",
    )
    monkeypatch.setenv("RANK", "1")
    assert run(*words) == (2, "", "")
    assert not (folder / "out").exists()
