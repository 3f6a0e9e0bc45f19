"""Kills a job at random moments and checks that its result is the same in the end.

`python -m benchmarks.killed` tests the command line, and ComfyUI's server with each of its caches.
It also interrupts the server in the third segment. It takes a quarter of an hour on two cores.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import find_comfyui

from .comfyui_server import Server, lay_out, running
from .host_memory import animate

FLAGS = ((), ("--cache-none",), ("--cache-lru", "10"), ("--cache-classic",))
STEPS, SECONDS = 4, 6.5
TAKEN = re.compile(r"(\d+) of (\d+) segments were kept from an earlier run")


def command(output: Path, speech: Path, *options: str) -> list:
    job = ["animate", "--speech", speech, "--output", output, "--steps", str(STEPS), "--quiet"]
    return [sys.executable, "-m", "hallo3_core", *job, *options]


def on_the_command_line(folder: Path, speech: Path, kills: int) -> None:
    """Kill a command and start it again. Print whether it makes the same video in the end."""
    whole, output = folder / "whole.mp4", folder / "video.mp4"
    start = time.monotonic()
    subprocess.run(command(whole, speech, "--no-store"), check=True, capture_output=True)
    took, moments = time.monotonic() - start, []
    for _ in range(kills):
        moments.append(random.uniform(0, took))
        job = subprocess.Popen(command(output, speech), stdout=-1, stderr=-1)
        try:
            job.wait(moments[-1])
        except subprocess.TimeoutExpired:
            job.kill()
        output.unlink(missing_ok=True)
    done = subprocess.run(command(output, speech), check=True, capture_output=True, text=True)
    same = output.read_bytes() == whole.read_bytes()
    taken = TAKEN.search(done.stdout)
    print(
        f"command line, killed after {_seconds(moments)} s of {took:.0f}: the same: {same}; ",
        end="",
    )
    print(taken[0] if taken else "no segments were kept from an earlier run", flush=True)


def in_the_server(folder: Path, speech: str, port: int, flags: tuple, kills: int) -> None:
    """The same for a prompt whose server is killed. Then interrupt one and queue it again."""
    comfyui, base = find_comfyui(), folder / "base"
    os.environ["HALLO3_STORE_GB"] = "0"
    with running(comfyui, port, flags, base) as server:
        start = time.monotonic()
        server.run(animate(speech, seed=0, steps=STEPS))
        took = time.monotonic() - start
        whole = newest_video(server).read_bytes()
    del os.environ["HALLO3_STORE_GB"]
    moments = []
    for _ in range(kills):
        with running(comfyui, port, flags, base) as server:
            server.queue(animate(speech, seed=0, steps=STEPS))
            moments.append(random.uniform(0, took))
            time.sleep(moments[-1])
    with running(comfyui, port, flags, base) as server:
        server.run(animate(speech, seed=0, steps=STEPS))
        same = newest_video(server).read_bytes() == whole
        killed = TAKEN.findall(server.log.read_text())
        prompt = server.queue(animate(speech, seed=1, steps=STEPS))
        while "segment 3 of 4: sampling" not in server.log.read_text()[-300:]:
            time.sleep(0.02)
        server.read("/interrupt", {})
        assert server.wait(prompt)["status_str"] == "error"
        server.run(animate(speech, seed=1, steps=STEPS))
        interrupted = TAKEN.findall(server.log.read_text())[len(killed) :]
    name = " ".join(("server", *flags))
    print(
        f"{name}, killed after {_seconds(moments)} s of {took:.0f}: the same: {same}; "
        f"taken after the kills: {killed[-1:]}, after an interrupt: {interrupted}",
        flush=True,
    )


def newest_video(server: Server) -> Path:
    return max((server.base / "output").glob("v_*.mp4"), key=lambda path: path.stat().st_mtime)


def _seconds(moments: list[float]) -> str:
    return ", ".join(f"{moment:.1f}" for moment in moments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kills", type=int, default=10, help="how often each is killed (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8196)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (%(default)s)")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HALLO3_STORE"] = str(folder / "segments")
        lay_out(folder / "base")
        with running(find_comfyui(), options.port, base=folder / "base") as server:
            speech = server.input / server.speech(SECONDS)
        on_the_command_line(folder, speech, options.kills)
        for flags in FLAGS:
            in_the_server(folder, speech.name, options.port, flags, options.kills)


if __name__ == "__main__":
    main()
