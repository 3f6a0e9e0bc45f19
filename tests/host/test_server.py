"""The pack in ComfyUI's own server: how it starts, what it lists, that it stays up."""

import json
import socket
from urllib.error import HTTPError

import pytest
from comfyui import PACK

from benchmarks.comfyui_server import Server, running
from benchmarks.host_memory import animate
from run import find_comfyui

WORKFLOWS = {
    "1 Quick start",
    "2 Any length",
    "3 Three segments by hand",
    "4 Stock samplers",
    "5 Finish",
    "6 Group and song",
}
HIDDEN = ("dynprompt", "unique_id")


@pytest.fixture(scope="module")
def server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running(find_comfyui(), port) as server:
        yield server


def test_it_starts_without_a_warning(server: Server):
    log = server.log.read_text()
    assert "custom_nodes/ComfyUI-Hallo3" in log
    assert "IMPORT FAILED" not in log
    ours = [line for line in log.splitlines() if "hallo3" in line.lower()]
    assert not [line for line in ours if "warn" in line.lower() or "error" in line.lower()]


def test_nodes_and_their_tooltips(server: Server):
    nodes = {name: node for name, node in server.ask("/object_info").items() if "Hallo3" in name}
    assert len(nodes) == 19
    for node in nodes.values():
        assert node["category"].startswith("Hallo3")
        assert node["description"]
        assert all(node["output_tooltips"])
        for group in node["input"].values():
            for name, (_, *options) in group.items():
                assert name in HIDDEN or options[0]["tooltip"]


def test_workflows_are_listed(server: Server):
    (names,) = server.ask("/api/workflow_templates").values()
    assert set(names) == WORKFLOWS
    nodes = server.ask("/object_info").keys() | {"MarkdownNote"}
    for name in names:
        file = PACK / "workflows" / f"{name}.json"
        assert file.with_suffix(".jpg").stat().st_size > 10_000
        assert {node["type"] for node in json.loads(file.read_text())["nodes"]} <= nodes


def test_help_pages_are_served(server: Server):
    for name in server.ask("/object_info"):
        if name.startswith("Hallo3"):
            page = server.read(f"/extensions/ComfyUI-Hallo3/docs/{name}.md")
            assert page.startswith("# ")


def test_a_wrong_graph_is_refused_and_the_server_stays_up(server: Server):
    graph = animate("hallo3_speech.wav", seed=0, steps=0)
    with pytest.raises(HTTPError) as refused:
        server.ask("/prompt", {"prompt": graph})
    answer = json.loads(refused.value.read())
    assert "animate" in answer["node_errors"]
    server.run(animate(server.speech(0.5), seed=0, steps=1))
    (video,) = (server.log.parent / "output").glob("*.mp4")
    assert video.stat().st_size > 1000
