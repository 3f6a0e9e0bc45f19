"""Downloads from a local server that answers like huggingface.co."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from hallo3_core.model.download import FILES, STAGING, TEXT_ENCODERS
from hallo3_core.model.finding import find_files

MB = 10**6
ROOT = Path(__file__).resolve().parents[2]


class Hub:
    """The files by path, the requests, and whether answers are damaged or cut off."""

    def __init__(self):
        self.files = {
            f"/{file.repository}/resolve/main/{file.name}": file.name.encode() * 5000
            for file in (*FILES, *TEXT_ENCODERS["fp16"])
        }
        self.ranges: list[str | None] = []
        self.spoiled = False
        self.stops_after: int | None = None

    def serve(self) -> ThreadingHTTPServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(with_content=False)

            def do_GET(self):
                self.answer(with_content=True)

            def answer(self, with_content: bool) -> None:
                content = hub.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                large = not self.path.endswith(".json")
                blob = b"blob %d\0" % len(content) + content
                etag = hashlib.sha256(content) if large else hashlib.sha1(blob)
                start = 0
                if with_content:
                    asked = self.headers.get("Range")
                    hub.ranges.append(asked)
                    start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
                self.send_response(206 if start else 200)
                self.send_header("ETag", f'"{etag.hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                if with_content:
                    sent = content[start:]
                    if hub.spoiled:
                        sent = bytes(len(sent))
                    if hub.stops_after is not None:
                        sent, hub.stops_after = sent[: hub.stops_after], None
                    self.wfile.write(sent)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        return server


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    server = hub.serve()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()


def download(hub: Hub, folder: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "hallo3_core", "download", folder, *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1"},
    )


def test_into_a_folder_and_again(hub, tmp_path):
    """The folder gets the published layout, which --model reads.

    The second run downloads nothing.
    """
    done = download(hub, tmp_path, "--text-encoder", "fp16")
    assert done.returncode == 0, done.stderr
    for file in find_files(tmp_path):
        assert file.exists()
    placed = [Path(line) for line in done.stdout.splitlines()]
    assert [path.read_bytes()[:20] for path in placed] == [
        (file.name.encode() * 5000)[:20] for file in (*FILES, *TEXT_ENCODERS["fp16"])
    ]
    fetched = len(hub.ranges)
    assert download(hub, tmp_path, "--text-encoder", "fp16").stdout == done.stdout
    assert len(hub.ranges) == fetched
    assert not (tmp_path / STAGING).exists()


def test_into_the_models_of_comfyui(hub, tmp_path):
    (tmp_path / "diffusion_models").mkdir()
    done = download(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    places = [str(Path(line).relative_to(tmp_path)) for line in done.stdout.splitlines()]
    assert places == [
        "diffusion_models/hallo3/1/mp_rank_00_model_states.pt",
        "vae/hallo3/3d-vae.pt",
        "audio_encoders/wav2vec2-base-960h/model.safetensors",
        "audio_encoders/wav2vec2-base-960h/config.json",
    ]
    files = find_files(tmp_path)
    assert files.transformers == (tmp_path / places[0]).resolve()
    assert [path.exists() for path in files] == [True, True, True, False, True]


def test_what_was_broken_off_goes_on(hub, tmp_path):
    first = next(iter(hub.files))
    hub.files[first] = bytes(30 * MB)
    hub.stops_after = 25 * MB
    assert download(hub, tmp_path).returncode == 0
    assert hub.ranges[:2] == [None, "bytes=20971520-"]


def test_what_arrives_damaged_is_not_kept(hub, tmp_path):
    hub.spoiled = True
    done = download(hub, tmp_path)
    assert done.returncode == 2
    assert "was damaged in the download: start again" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_not_left_empty(hub, tmp_path):
    hub.spoiled = True
    assert download(hub, tmp_path / "a" / "b").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_not_replaced(hub, tmp_path):
    """Nothing is downloaded in this case, unless --overwrite is given."""
    mine = FILES[-1].place(tmp_path)
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    done = download(hub, tmp_path)
    assert done.returncode == 2
    assert f"{mine} exists already: give --overwrite" in done.stderr
    assert mine.read_bytes() == b"mine"
    assert hub.ranges == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert download(hub, tmp_path, "--overwrite").returncode == 0
    assert mine.read_bytes() != b"mine"


def test_no_network(hub, tmp_path):
    hub.address = "http://127.0.0.1:9"
    done = download(hub, tmp_path)
    assert done.returncode == 2
    assert "cannot be downloaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_needs_no_network(hub, tmp_path):
    hub.address = "http://127.0.0.1:9"
    done = download(hub, tmp_path, "--list")
    assert done.returncode == 0
    assert "mp_rank_00_model_states.pt: 29.10 GB, CogVideoX licence" in done.stdout
