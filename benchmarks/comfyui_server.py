"""A real ComfyUI server with only this pack, in its own process and base folder."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from hallo3_core.cli import parse

PACK = Path(__file__).resolve().parents[1]
FOLDERS = ("custom_nodes", "input", "output", "temp", "user/default", "models")


class Server:
    """ComfyUI on the CPU with its default flags and `flags`. `log` is the file of its messages."""

    def __init__(self, comfyui: Path, base: Path, port: int, flags: Iterable[str] = ()):
        if not base.exists():
            lay_out(base)
        self.base, self.input = base, base / "input"
        self.address = f"http://127.0.0.1:{port}"
        options = ["--cpu", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"]
        options += ["--base-directory", base, "--database-url", f"sqlite:///{base}/user/comfy.db"]
        self.log = base / "log.txt"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "main.py", *options, *flags], cwd=comfyui, stdout=log, stderr=log
            )
        while True:
            time.sleep(1)
            if self.process.poll() is not None:
                raise SystemExit(self.log.read_text())
            try:
                self.ask("/system_stats")
                break
            except urllib.error.URLError:
                continue

    def read(self, path: str, data: dict | None = None, method: str | None = None) -> str:
        body = None if data is None else json.dumps(data).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, body, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.read().decode()

    def ask(self, path: str, data: dict | None = None, method: str | None = None) -> dict:
        return json.loads(self.read(path, data, method) or "{}")

    def queue(self, graph: dict) -> str:
        """Queue a graph. Returns the id of the prompt."""
        return self.ask("/prompt", {"prompt": graph})["prompt_id"]

    def wait(self, prompt_id: str) -> dict:
        """Wait for a prompt to end. Returns its status."""
        while prompt_id not in (history := self.ask(f"/history/{prompt_id}")):
            time.sleep(0.2)
        return history[prompt_id]["status"]

    def run(self, graph: dict) -> None:
        """Queue a graph and wait until it has finished."""
        status = self.wait(self.queue(graph))
        if status["status_str"] != "success":
            raise SystemExit(json.dumps(status, indent=1))

    def free(self) -> None:
        """Unload all models. ComfyUI does it when its worker wakes up."""
        self.ask("/free", {"unload_models": True, "free_memory": True})
        time.sleep(5)

    def memory(self, field: str = "VmRSS") -> float:
        """Resident memory in MB: now, or, with `VmHWM`, the peak since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def speech(self, seconds: float) -> str:
        """Write the example speech, repeated to this length. Returns the file's name."""
        with wave.open(str(self.input / "hallo3_speech.wav")) as reader:
            parameters, sound = reader.getparams(), reader.readframes(-1)
        size = round(seconds * parameters.framerate) * parameters.sampwidth * parameters.nchannels
        name = f"speech_{seconds:g}.wav"
        with wave.open(str(self.input / name), "wb") as writer:
            writer.setparams(parameters)
            writer.writeframes((sound * (size // len(sound) + 1))[:size])
        return name


def lay_out(base: Path) -> None:
    """Make a base folder with this pack and its examples."""
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True)
    (base / "custom_nodes" / "ComfyUI-Hallo3").symlink_to(PACK)
    examples = parse(["examples", str(base / "input")])
    with redirect_stdout(None):
        examples.run(examples)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    comfyui: Path, port: int, flags: Iterable[str] = (), base: Path | None = None
) -> Iterator[Server]:
    """A running server. It has a temporary base folder unless one is given."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(comfyui, base or Path(folder) / "base", port, flags)
        try:
            yield server
        finally:
            server.process.kill()
            server.process.wait()
