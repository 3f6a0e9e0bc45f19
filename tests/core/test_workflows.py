"""The workflows of the pack, as they are saved."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from hallo3_core.store.segment_store import GB, SIZE
from workflows.wires import Box, hidden, saved

ROOT = Path(__file__).parents[2]
TITLE = 30
"""The height of the title above a node, in pixels."""
BAR = 34
"""The height of the title in a frame."""
BYPASSED = 4
DRAWS = {
    "Hallo3EncodeIdentity": "seed",
    "Hallo3SampleSegment": "seed",
    "Hallo3ExtendWithMotionFrames": "seed",
    "Hallo3AnimatePortrait": "seed",
    "Hallo3Redub": "seed",
    "KSampler": "seed",
    "RandomNoise": "noise_seed",
}
"""Nodes that draw noise, and the input of each that sets the seed."""
STEPS, GUIDANCE = 4, 1.0
SHOWN = {
    "Hallo3LoadDiT": 90,
    "Hallo3LoadVAE": 90,
    "Hallo3LoadSpeechEncoder": 90,
    "Hallo3Speaker": 90,
    "Hallo3FindFace": 308,
    "Hallo3EncodeIdentity": 96,
    "Hallo3EncodeSpeech": 58,
    "Hallo3Dialogue": 58,
    "Hallo3SampleSegment": 308,
    "Hallo3AnimatePortrait": 308,
    "Hallo3CropFace": 58,
    "Hallo3Redub": 308,
    "KSampler": 220,
    "SamplerCustomAdvanced": 220,
    "GetImageSize": 58,
    "PreviewImage": 220,
    "SaveVideo": 252,
}
"""The least height, in pixels, that a node gains when it has run, in one of two node styles."""


class Graph:
    """A workflow in the format of ComfyUI's UI."""

    def __init__(self, name: str):
        file = ROOT / "workflows" / f"{name}.json"
        self.saved = json.loads(file.read_text(encoding="utf-8"))
        self.nodes = {node["id"]: node for node in self.saved["nodes"]}
        self.links = {link[0]: link for link in self.saved["links"]}

    def of(self, *kinds: str) -> list[dict]:
        return [node for node in self.nodes.values() if node["type"] in kinds]

    def source(self, node: dict, name: str) -> tuple[dict, str]:
        """The node that is linked to an input, and the name of its output."""
        (given,) = (given for given in node["inputs"] if given["name"] == name)
        _, source, slot, *_ = self.links[given["link"]]
        return self.nodes[source], self.nodes[source]["outputs"][slot]["name"]

    def widget(self, node: dict, name: str) -> object:
        """The value of a widget of a node. Nodes save their widget values in order."""
        names = [given["name"] for given in node["inputs"] if "widget" in given]
        for after in ("seed", "noise_seed"):  # control_after_generate has no input of its own
            if after in names:
                names.insert(names.index(after) + 1, "control_after_generate")
        return node["widgets_values"][names.index(name)]


NAMES = sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))


@pytest.fixture(params=NAMES)
def graph(request) -> Graph:
    return Graph(request.param)


def test_there_are_nine():
    assert [name[0] for name in NAMES] == [*"123456789"]


@pytest.mark.parametrize("name", NAMES)
def test_its_picture_among_the_templates_moves(name):
    """ComfyUI asks for a .jpg; browsers show the animated WebP that it is."""
    with Image.open(ROOT / "workflows" / f"{name}.jpg") as picture:
        assert (picture.format, picture.width) == ("WEBP", 320)
        assert picture.n_frames >= 20
    with Image.open(ROOT / "docs" / "pictures" / "graphs" / f"{name}.jpg") as graph:
        assert graph.format == "JPEG"


def test_one_seed_is_linked_to_all_and_stays(graph):
    """Queueing again gives the same video, and the user sets only one seed."""
    (seed,) = graph.of("PrimitiveInt")
    assert seed["title"] == "Seed"
    assert seed["widgets_values"] == [0, "fixed"]
    drawing = graph.of(*DRAWS)
    assert len(drawing) >= 2
    for node in drawing:
        source, _ = graph.source(node, DRAWS[node["type"]])
        assert source is seed


def test_the_sound_is_that_of_what_is_shown():
    for name, kind in (("1 Quick start", "SampleSegment"), ("4 Stock samplers", "SegmentCond")):
        graph = Graph(name)
        (video,) = graph.of("CreateVideo")
        source, output = graph.source(video, "audio")
        assert source["type"].startswith(f"Hallo3{kind}")
        assert output == "audio"
    whole = Graph("3 Three segments by hand")
    (video,) = whole.of("CreateVideo")
    assert whole.source(video, "audio")[0]["type"] == "LoadAudio"


def test_settings_serve_the_built_in_model(graph):
    """The notes describe these settings, and those for the released model."""
    for node in graph.of("Hallo3SampleSegment", "Hallo3AnimatePortrait", "Hallo3Redub"):
        found = [graph.widget(node, name) for name in ("steps", "guidance", "sampler")]
        assert found == [STEPS, GUIDANCE, "few"]
    for node in graph.of("KSampler"):
        assert (graph.widget(node, "steps"), graph.widget(node, "cfg")) == (STEPS, GUIDANCE)
    notes = [node["widgets_values"][0] for node in graph.of("MarkdownNote")]
    released = "Set steps to 50, guidance to 3.5 and the sampler to sde-dpm++2m"
    assert sum(released in note for note in notes) == 1


def box(node: dict) -> Box:
    """Left, top, right and bottom of a node, with the height that it gains after it has run."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height + SHOWN.get(node["type"], 0)


def apart(a: Box, b: Box) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_no_node_covers_another(graph):
    for one, other in combinations(graph.nodes.values(), 2):
        assert apart(box(one), box(other)), (one["type"], other["type"])


def frames(graph: Graph) -> dict[str, Box]:
    """The frames of the parts, by their titles, without the bar that has the title."""
    bounds = {group["title"]: group["bounding"] for group in graph.saved["groups"]}
    assert len(bounds) == len(graph.saved["groups"])
    return {title: (x, y + BAR, x + wide, y + high) for title, (x, y, wide, high) in bounds.items()}


def around(graph: Graph, node: dict) -> list[str]:
    """The titles of the frames that have the whole node inside."""
    left, top, right, bottom = box(node)
    return [
        title
        for title, (x, y, end, floor) in frames(graph).items()
        if x < left and y < top and right < end and bottom < floor
    ]


def test_every_node_is_in_one_frame(graph):
    """All of it, with what it shows after a run. A note may be outside."""
    for node in graph.nodes.values():
        found = around(graph, node)
        touched = [title for title, frame in frames(graph).items() if not apart(box(node), frame)]
        assert touched == found, node["type"]
        assert len(found) == 1 or (node["type"] == "MarkdownNote" and not found), node["type"]


def test_frames_do_not_overlap(graph):
    whole = [(x, y - BAR, end, floor) for x, y, end, floor in frames(graph).values()]
    assert all(apart(one, other) for one, other in combinations(whole, 2))


def test_the_parts_have_the_same_names_in_all(graph):
    titles = {*frames(graph)}
    assert titles >= {"Load", "Portrait", "Speech", "Save"}
    assert titles & {"Animate", "Segment 1"}


def test_the_title_says_which_parts_are_bypassed(graph):
    """They have a colour of their own, too."""
    colours: dict[bool, set[str]] = {True: set(), False: set()}
    for group in graph.saved["groups"]:
        colours[group["title"].endswith("(needs a file)")].add(group["color"])
    assert not colours[True] & colours[False]
    for node in graph.nodes.values():
        needy = any(title.endswith("(needs a file)") for title in around(graph, node))
        assert (node["mode"] == BYPASSED) == needy, node["type"]


def inside(file: Path) -> dict:
    """The graph inside a blueprint in the format of a workflow, with its two ends as nodes."""
    saved = json.loads(file.read_text(encoding="utf-8"))
    (graph,) = saved["definitions"]["subgraphs"]
    links = graph["links"]
    graph["links"] = [[*each.values()][:6] for each in links]
    own = [{"id": each["id"], "parentId": each["parentId"]} for each in links if "parentId" in each]
    graph["extra"] = {"reroutes": graph["reroutes"], "linkExtensions": own}
    for end, inputs, outputs in (("inputNode", "", "inputs"), ("outputNode", "outputs", "")):
        left, top, width, height = graph[end]["bounding"]
        node = {"id": graph[end]["id"], "type": end, "pos": [left, top], "size": [width, height]}
        sockets = {
            "inputs": graph[inputs] if inputs else [],
            "outputs": graph[outputs] if outputs else [],
        }
        graph["nodes"].append(node | sockets)
    return graph


def test_every_wire_goes_to_the_right(graph):
    """From the right side of a node to the left side of another one that is right of it."""
    for _, source, _, target, _, _ in graph.links.values():
        _, _, right, _ = box(graph.nodes[source])
        left, *_ = box(graph.nodes[target])
        assert right + 100 <= left, (graph.nodes[source]["type"], graph.nodes[target]["type"])


def test_no_wire_is_behind_a_node(graph):
    """None of 251 in all graphs, with the nodes as large as they are after a run."""
    boxes = {str(id): box(node) for id, node in graph.nodes.items()}
    wires = saved(graph.saved)
    assert len(wires) == len(graph.links)
    assert hidden(wires, boxes) == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "subgraphs").glob("*.json")), ids=lambda file: file.stem
)
def test_no_wire_is_behind_a_node_in_a_blueprint(file):
    graph = inside(file)
    boxes = {str(node["id"]): box(node) for node in graph["nodes"]}
    wires = saved(graph)
    assert len(wires) >= 15
    assert hidden(wires, boxes) == []


def test_reroutes_are_why(graph):
    """Without them, wires that pass a column are behind its nodes, and this is seen."""
    boxes = {str(id): box(node) for id, node in graph.nodes.items()}
    graph.saved["extra"] = {}
    assert len(hidden(saved(graph.saved), boxes)) >= 4


def test_the_settings_page_is_about_the_same_store():
    """The front end and the server use the same names for the setting and the route."""
    page = (ROOT / "web" / "hallo3.js").read_text(encoding="utf-8")
    server = (ROOT / "nodes" / "host" / "store.py").read_text(encoding="utf-8")
    for name in ("Hallo3.SegmentStore.Size", "/hallo3/segments"):
        assert f'"{name}"' in page
        assert f'"{name}"' in server
    assert f"defaultValue: {SIZE // GB}," in page
