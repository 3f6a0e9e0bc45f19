"""The subgraph blueprints: they fit the nodes as they are, and run."""

import json
from pathlib import Path

import pytest
from comfyui import PACK, Graph, Host

FILES = sorted((PACK / "subgraphs").glob("*.json"), key=lambda file: file.name)
INSIDE, OUTSIDE = -10, -20
"""The ends of the links that come from the inputs, and that go to the outputs."""
VIDEO_OR_IMAGES = ("IMAGE,VIDEO", "COMFY_MATCHTYPE_V3", "*")


class Blueprint:
    """A saved blueprint: the one node outside, and the graph inside."""

    def __init__(self, file: Path):
        saved = json.loads(file.read_text(encoding="utf-8"))
        (self.node,), (self.inside,) = saved["nodes"], saved["definitions"]["subgraphs"]
        self.nodes = {node["id"]: node for node in self.inside["nodes"]}
        self.links = {link["id"]: link for link in self.inside["links"]}
        widgets = [given["name"] for given in self.node["inputs"] if "widget" in given]
        self.values = dict(zip(widgets, self.node["widgets_values"], strict=True))

    def prompt(self, **given: list) -> dict[str, dict]:
        """The graph in API form, with links `given` to the inputs of the outside."""
        known = self.values | given
        prompt = {}
        for id, node in self.nodes.items():
            named = node.get("widgets_values_named", {})
            widgets = {each["name"] for each in node["inputs"] if "widget" in each}
            inputs = {name: value for name, value in named.items() if name in widgets}
            for each in node["inputs"]:
                link = self.links.get(each["link"])
                if link and link["origin_id"] != INSIDE:
                    inputs[each["name"]] = [str(link["origin_id"]), link["origin_slot"]]
                elif link and (name := self.inside["inputs"][link["origin_slot"]]["name"]) in known:
                    inputs[each["name"]] = known[name]
            prompt[str(id)] = {"class_type": node["type"], "inputs": inputs}
        return prompt

    def source(self, output: str) -> list:
        """The node inside that an output comes from, and the number of its output."""
        (found,) = (each for each in self.inside["outputs"] if each["name"] == output)
        link = self.links[found["linkIds"][0]]
        return [str(link["origin_id"]), link["origin_slot"]]


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def blueprint(request) -> Blueprint:
    return Blueprint(request.param)


def sockets(definition: dict) -> dict[str, tuple[str, dict]]:
    """The inputs of a node by name, as ComfyUI lists them; those that grow have the first names."""
    found = {}
    for group in ("required", "optional"):
        for name, (type_, *options) in definition["input"].get(group, {}).items():
            options = options[0] if options else {}
            if type_ == "COMFY_AUTOGROW_V3":
                template = options["template"]
                ((type_, options),) = template["input"]["required"].values()
                grown = [f"{name}.{template['prefix']}{i}" for i in range(3)]
                found |= dict.fromkeys(grown, (type_, options))
            else:
                found[name] = ("COMBO" if isinstance(type_, list) else type_, options)
    return found


def definition_of(host: Host, kind: str) -> dict:
    node = host.nodes.NODE_CLASS_MAPPINGS[kind]
    if hasattr(node, "GET_NODE_INFO_V1"):
        return node.GET_NODE_INFO_V1()
    return {"input": node.INPUT_TYPES(), "output": list(node.RETURN_TYPES)}


def test_there_are_six():
    assert [file.stem for file in FILES] == [
        "Continue a Video (Hallo3)",
        "Dialogue of Two (Hallo3)",
        "New Words for a Video (Hallo3)",
        "Portrait and Speech to Video (Hallo3)",
        "Restore the Face (Hallo3)",
        "Talking Portrait (Hallo3)",
    ]


def fits(one: str, other: str) -> bool:
    return one == other or (one in VIDEO_OR_IMAGES and other in ("IMAGE", "VIDEO"))


def test_all_links_fit_the_nodes(host, blueprint):
    for link in blueprint.links.values():
        if link["origin_id"] == INSIDE:
            assert blueprint.inside["inputs"][link["origin_slot"]]["type"] == link["type"]
        else:
            source = definition_of(host, blueprint.nodes[link["origin_id"]]["type"])
            assert fits(source["output"][link["origin_slot"]], link["type"]), link
        if link["target_id"] == OUTSIDE:
            assert blueprint.inside["outputs"][link["target_slot"]]["type"] == link["type"]
        else:
            target = blueprint.nodes[link["target_id"]]
            given = target["inputs"][link["target_slot"]]
            assert given["link"] == link["id"]
            type_, _ = sockets(definition_of(host, target["type"]))[given["name"]]
            assert fits(type_, link["type"]), link


def test_all_inputs_that_must_be_connected_are(host, blueprint):
    for node in blueprint.nodes.values():
        definition = definition_of(host, node["type"])
        given = {each["name"]: each for each in node["inputs"]}
        for name in definition["input"].get("required", {}):
            assert name not in given or "widget" in given[name] or given[name]["link"], node["type"]


def test_the_node_outside_shows_what_is_inside(blueprint):
    assert blueprint.node["type"] == blueprint.inside["id"]
    for side in ("inputs", "outputs"):
        ends = [(end["name"], end["type"]) for end in blueprint.inside[side]]
        assert ends == [(end["name"], end["type"]) for end in blueprint.node[side]]
    for slot, end in enumerate(blueprint.inside["inputs"]):
        assert end["linkIds"]
        for link in map(blueprint.links.get, end["linkIds"]):
            assert (link["origin_id"], link["origin_slot"]) == (INSIDE, slot)
            target = blueprint.nodes[link["target_id"]]
            given = target["inputs"][link["target_slot"]]
            assert ("widget" in given) == (end["name"] in blueprint.values)
            if "widget" in given:
                value = target["widgets_values_named"][given["name"]]
                assert value == blueprint.values[end["name"]]


def test_the_built_in_model_has_its_settings(blueprint):
    """Those that it was distilled for, not the published ones that the nodes begin with."""
    shown = [blueprint.values.get(name) for name in ("steps", "guidance", "sampler")]
    assert shown in ([4, 1, "few"], [None] * 3)


def test_a_picture_and_a_sound_become_a_video(host, quick_decoding):
    blueprint = Blueprint(PACK / "subgraphs" / "Portrait and Speech to Video (Hallo3).json")
    graph = Graph()
    graph.nodes = blueprint.prompt(portrait=["image", 0], sound=["noise", 0])
    graph.nodes["image"] = {"class_type": "LoadImage", "inputs": {"image": "portrait.png"}}
    graph.nodes["noise"] = {"class_type": "NoiseAudio", "inputs": {"seconds": 1.0}}
    graph.nodes["Keep"] = {"class_type": "Keep", "inputs": {"value": blueprint.source("video")}}
    (video,) = host.run(graph)
    assert video.get_duration() == pytest.approx(1.0, abs=0.02)


def test_a_video_goes_on_and_keeps_what_it_was(host, quick_decoding):
    blueprint = Blueprint(PACK / "subgraphs" / "Continue a Video (Hallo3).json")
    graph = Graph()
    graph.nodes = blueprint.prompt(video=["first", 0], sound=["noise", 0])
    graph.nodes["image"] = {"class_type": "LoadImage", "inputs": {"image": "portrait.png"}}
    ten = {"image": ["image", 0], "amount": 10}
    graph.nodes["ten"] = {"class_type": "RepeatImageBatch", "inputs": ten}
    made = {"images": ["ten", 0], "fps": 25.0, "bit_depth": 8}
    graph.nodes["first"] = {"class_type": "CreateVideo", "inputs": made}
    graph.nodes["noise"] = {"class_type": "NoiseAudio", "inputs": {"seconds": 1.0}}
    longer = blueprint.source("longer_video")
    graph.nodes["Keep"] = {"class_type": "Keep", "inputs": {"value": longer}}
    graph.nodes["Before"] = {"class_type": "Keep", "inputs": {"value": ["ten", 0]}}
    video, before = host.run(graph)
    frames = video.get_components().images
    assert len(frames) == 10 + 25
    assert (frames[:10] == before[..., :3]).all()
