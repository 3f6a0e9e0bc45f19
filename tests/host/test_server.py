"""The pack in ComfyUI's own server: it starts, lists its nodes, and does not stop after errors."""

import json
import shutil
import time
from urllib.error import HTTPError

import pytest
from comfyui import PACK

from benchmarks.comfyui_server import Server, free_port, running
from benchmarks.host_memory import animate
from run import find_comfyui

WORKFLOWS = {
    "1 Quick start",
    "2 Any length",
    "3 Three segments by hand",
    "4 Stock samplers",
    "5 Finish",
    "6 Group and song",
    "7 Dialogue",
    "8 Restore the face",
    "9 New words",
}
EXAMPLES = ("portrait.png", "group.png", "speech.wav", "song.wav")
HIDDEN = ("dynprompt", "unique_id", "prompt", "extra_pnginfo")


@pytest.fixture(autouse=True)
def empty_store(monkeypatch):
    """Each server has its store in the same place as for users."""
    monkeypatch.delenv("HALLO3_STORE", raising=False)


@pytest.fixture(scope="module")
def server():
    with running(find_comfyui(), free_port()) as server:
        yield server


def test_it_starts_without_a_warning(server: Server):
    log = server.log.read_text()
    assert "custom_nodes/ComfyUI-Hallo3" in log
    assert "IMPORT FAILED" not in log
    ours = [line for line in log.splitlines() if "hallo3" in line.lower()]
    assert not [line for line in ours if "warn" in line.lower() or "error" in line.lower()]


def test_nodes_and_their_tooltips(server: Server):
    nodes = {name: node for name, node in server.ask("/object_info").items() if "Hallo3" in name}
    assert len(nodes) == 24
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


def test_missing_examples_are_copied_on_request(server: Server):
    """A file of the user that has the name of an example stays."""
    folder = server.base / "input"
    for file in folder.glob("hallo3_*"):
        file.unlink()
    (folder / "hallo3_pair.png").write_bytes(b"mine")
    missing = server.ask("/hallo3/examples")
    assert missing == [f"hallo3_{name}" for name in EXAMPLES]
    assert server.ask("/hallo3/examples", {}) == []
    assert (folder / "hallo3_pair.png").read_bytes() == b"mine"
    assert all((folder / name).stat().st_size > 10_000 for name in missing)
    server.ask("/hallo3/examples", {})
    assert (folder / "hallo3_pair.png").read_bytes() == b"mine"


def test_examples_that_cannot_be_copied_are_explained(server: Server):
    folder = server.base / "input"
    away = folder.rename(server.base / "away")
    try:
        with pytest.raises(HTTPError) as refused:
            server.ask("/hallo3/examples", {})
    finally:
        away.rename(folder)
    assert refused.value.read().decode() == (
        f"Nothing can be written to {folder} (No such file or directory): check this folder, or "
        "choose another."
    )


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


def test_the_store_is_emptied_on_request(server: Server):
    server.run(animate(server.speech(0.4), seed=1, steps=1))
    store = server.ask("/hallo3/segments")
    assert store["segments"] >= 1
    assert store["bytes"] > 100_000
    emptied = server.ask("/hallo3/segments", method="DELETE")
    assert (emptied["segments"], emptied["bytes"]) == (0, 0)
    assert emptied["folder"].startswith(str(server.base / "user"))


def test_only_what_a_change_touches_is_computed_again(server: Server):
    """Two segments, with a prompt that changes in the second."""
    graph = animate(server.speech(2), seed=0, steps=1)

    def kept(later: str, **inputs) -> str:
        """What the node says of the kept segments of the clip."""
        prompts = {"prompts": f"0 a woman\n1.9 {later}"}
        graph["prompts"] = {"class_type": "Hallo3PromptsOverTime", "inputs": prompts}
        graph["animate"]["inputs"] |= {"positive": ["prompts", 0], **inputs}
        before = len(server.log.read_text())
        server.run(graph)
        return server.log.read_text()[before:]

    assert "kept" not in kept("she smiles")
    assert "; 1 of 2 segments were kept" in kept("she turns")
    assert "; 2 of 2 segments were kept" in kept("she smiles", crf=20)
    assert "; 1 of 2 segments were kept" in kept("she smiles", segment_seeds="1:9")
    assert "; 1 of 1 segments were kept" in kept("she smiles", end=1.5)


def test_finished_segments_outlive_an_interrupt_a_kill_and_emptied_folders(server: Server):
    """In a server as users start it. Both runs together compute each segment once."""
    output = server.base / "output"
    shutil.rmtree(output)
    graph = animate(server.speech(2), seed=0, steps=3)
    before = len(server.log.read_text())
    prompt = server.queue(graph)
    while "segment 2 of 2: sampling" not in server.log.read_text()[before:]:
        time.sleep(0.02)
    server.read("/interrupt", {})
    assert server.wait(prompt)["status_str"] == "error"
    (unfinished,) = output.glob("*.mp4")
    assert unfinished.name.startswith("hallo3_unfinished_")
    server.process.kill()
    server.process.wait()
    with running(find_comfyui(), free_port(), base=server.base) as again:
        again.run(graph)
        assert "; 1 of 2 segments were kept from an earlier run" in again.log.read_text()
        assert [file.name for file in output.iterdir()] == ["v_00001_.mp4"]
        for folder in ("temp", "output"):
            shutil.rmtree(again.base / folder)
        graph["save"]["inputs"]["filename_prefix"] = "again"
        again.run(graph)
        assert (output / "again_00001_.mp4").stat().st_size > 1000
        assert "; 2 of 2 segments were kept from an earlier run" in again.log.read_text()
