"""Workflow files that users saved with an older version of the pack still load and run.

`old_workflows/` has the six workflows as the pack shipped them on 26 November 2026.
"""

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from comfyui import Graph, Host
from quick import quick_pictures

from hallo3_core.examples import write_examples

FILES = sorted(Path(__file__).with_name("old_workflows").glob("*.json"))
BYPASSED = 4
UNSAVED = ("MarkdownNote",)
CONTROL = "control_after_generate"


class Saved:
    """A workflow file in the format of the front end."""

    def __init__(self, file: Path):
        saved = json.loads(file.read_text(encoding="utf-8"))
        self.nodes = {node["id"]: node for node in saved["nodes"]}
        self.links = {link[0]: link[1:3] for link in saved["links"]}

    def source(self, link: int) -> list | None:
        """Where a link begins. A bypassed node passes on what has the type of its output."""
        id, slot = self.links[link]
        node = self.nodes[id]
        if node["mode"] != BYPASSED:
            return [str(id), slot]
        type_ = node["outputs"][slot]["type"]
        same = [each["link"] for each in node["inputs"] if each["type"] == type_ and each["link"]]
        return self.source(same[0]) if same else None

    def prompt(self) -> dict[str, dict]:
        """The graph in API form."""
        prompt = {}
        for id, node in self.nodes.items():
            if node["mode"] == BYPASSED or node["type"] in UNSAVED:
                continue
            inputs = dict(node.get("widgets_values_named", {}))
            for each in node.get("inputs", ()):
                if each.get("link") and (source := self.source(each["link"])):
                    inputs[each["name"]] = source
            prompt[str(id)] = {"class_type": node["type"], "inputs": inputs}
        return prompt


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def saved(request) -> Saved:
    return Saved(request.param)


def widgets(host: Host, kind: str) -> list[str]:
    """The names of the widgets of a node in the order in which a file has their values."""
    names = []
    inputs = host.nodes.NODE_CLASS_MAPPINGS[kind].GET_NODE_INFO_V1()["input"]
    for name, (type_, options) in (inputs["required"] | inputs.get("optional", {})).items():
        if type_ in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or isinstance(type_, list):
            names += [name, CONTROL] if options.get(CONTROL) else [name]
    return names


def test_there_are_six():
    assert len(FILES) == 6


def test_old_values_are_read_as_the_same_inputs(host, saved):
    """A file has the values of widgets by their order, so new widgets come after the old ones."""
    ours = [node for node in saved.nodes.values() if node["type"].startswith("Hallo3")]
    assert len(ours) >= 6
    for node in ours:
        named = node.get("widgets_values_named", {})
        old = [CONTROL if name == "fixed" else name for name in named]
        assert widgets(host, node["type"])[: len(old)] == old, node["type"]
        outputs = host.nodes.NODE_CLASS_MAPPINGS[node["type"]].GET_NODE_INFO_V1()["output"]
        assert [each["type"] for each in node["outputs"]] == outputs[: len(node["outputs"])]


@pytest.fixture
def quickly(host, monkeypatch, quick_decoding) -> None:
    """Decode VAE is quick too, and stock nodes can say something to a server."""
    decode_vae = inspect.getmodule(host.nodes.NODE_CLASS_MAPPINGS["Hallo3DecodeVAE"])
    monkeypatch.setattr(decode_vae, "decode_latent", lambda _, *given: quick_pictures(*given))
    queue = SimpleNamespace(currently_running={})
    server = SimpleNamespace(prompt_queue=queue, send_progress_text=lambda *said: None)
    monkeypatch.setattr(sys.modules["server"].PromptServer, "instance", server, raising=False)


def test_an_old_file_runs(host, saved, quickly, tmp_path):
    assert len([*write_examples(host.base / "input", overwrite=True)]) == 5
    graph = Graph()
    graph.nodes = saved.prompt()
    for node in graph.nodes.values():
        if node["class_type"] == "Hallo3AnimatePortrait":
            node["inputs"]["end"] = 1.0  # one segment is enough
        if node["class_type"] == "SaveVideo":
            node["inputs"]["filename_prefix"] = f"old/{tmp_path.name}"
    host.run(graph)
    (video,) = (host.base / "output" / "old").glob(f"{tmp_path.name}*.mp4")
    assert video.stat().st_size > 1000
