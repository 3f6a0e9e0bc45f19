"""Draws the subgraph blueprints in the front end of a running ComfyUI.

    python workflows/draw_blueprints.py http://127.0.0.1:8188 [NAME ...]

Each blueprint of `blueprints.py` (or each NAME) becomes a file in `subgraphs/`, where ComfyUI finds
it. This script needs playwright and Chromium; the pack does not.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from blueprints import BLUEPRINTS, Blueprint
from draw import Measured, check, measure, names
from front_end import arguments, each_with_pages, show_inside
from layout import TITLE, Grid, cell
from parts import Workflow
from routes import Link, routed

SUBGRAPHS = Path(__file__).resolve().parents[1] / "subgraphs"
CATEGORY = "Hallo3"
INPUT_NODE, OUTPUT_NODE = -10, -20
"""The numbers of the two ends of a subgraph, in the front end."""
KEYS = {INPUT_NODE: "inputs", OUTPUT_NODE: "outputs"}
WIDTH, ROW = 160, 20
"""Sizes of these ends, in pixels."""
OUTSIDE = 420
"""Width of the node that has the subgraph inside."""
LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


class Subgraph:
    """A drawn graph as the inside of one node, in the formats of the front end."""

    def __init__(self, name: str, blueprint: Blueprint, measured: Measured):
        self.name, self.blueprint, self.drawn = name, blueprint, measured.saved
        drawn = self.drawn
        self.nodes = dict(zip(blueprint.nodes, drawn["nodes"], strict=True))
        self.links = [dict(zip(LINK, link, strict=True)) for link in drawn["links"]]
        self.widgets: dict[str, object] = {}
        """Values of the inputs that have widgets."""
        self.inputs = [self.input(*each) for each in enumerate(blueprint.inputs)]
        self.outputs = [self.output(*each) for each in enumerate(blueprint.outputs)]
        self.place(measured)

    def input(self, place: int, name: str) -> dict:
        links = []
        for node, slot, given in self.ends(name):
            type_ = one_type(given)
            given["link"] = self.link(INPUT_NODE, place, node["id"], slot, type_)
            links.append(given["link"])
            if "widget" in given:
                self.widgets.setdefault(name, node["widgets_values_named"][given["name"]])
            shape = {key: given[key] for key in ("shape",) if key in given}
        return {**self.end("input", name, type_), "linkIds": links, **shape}

    def ends(self, name: str) -> Iterator[tuple[dict, int, dict]]:
        """The nodes that an input of the subgraph goes to, and their inputs."""
        for key, wanted in self.blueprint.targets(name):
            node = self.nodes[key]
            slots = [given["name"] for given in node["inputs"]]
            slot = slots.index(wanted)
            yield node, slot, node["inputs"][slot]

    def output(self, place: int, name: str) -> dict:
        key, _, slot = self.blueprint.outputs[name].partition(".")
        node, slot = self.nodes[key], int(slot or 0)
        given = node["outputs"][slot]
        type_ = one_type(given)
        link = self.link(node["id"], slot, OUTPUT_NODE, place, type_)
        given["links"] = [*(given["links"] or []), link]
        return {**self.end("output", name, type_), "linkIds": [link]}

    def link(self, *ends: int | str) -> int:
        number = max((link["id"] for link in self.links), default=0) + 1
        self.links.append(dict(zip(LINK, (number, *ends), strict=True)))
        return number

    def end(self, side: str, name: str, type_: str) -> dict:
        return {"id": self.uuid(side, name), "name": name, "type": type_}

    def place(self, measured: Measured) -> None:
        """Lay the graph out, with its ends as a first and a last column."""
        columns = [cell(node)[0] for node in self.blueprint.nodes.values()]
        first = {KEYS[INPUT_NODE]: ("", min(columns) - 1)}
        last = {KEYS[OUTPUT_NODE]: ("", max(columns) + 1)}
        heights = [ROW * (2 + len(ends)) for ends in (self.inputs, self.outputs)]
        sizes = measured.sizes | {
            key: (WIDTH, height) for key, height in zip(KEYS.values(), heights, strict=True)
        }
        grid = Grid(Workflow(first | self.blueprint.nodes | last), sizes)
        places, reroutes = routed(grid, [self.wire(link, measured) for link in self.links])
        for key, node in self.nodes.items():
            left, top, width = places[key]
            node["pos"], node["size"][0] = [left, top], width
        self.left, self.right = (
            [places[key][0], places[key][1] - TITLE, WIDTH, height]
            for key, height in zip(KEYS.values(), heights, strict=True)
        )
        self.reroutes = []
        for id, parent, x, y, links in reroutes:
            given = {"parentId": parent} if parent else {}
            self.reroutes.append({"id": id, **given, "pos": [x, y], "linkIds": links})
            for link in self.links:
                link |= {"parentId": id} if link["id"] in links else {}

    def wire(self, link: dict, measured: Measured) -> Link:
        """A link for the layout."""
        keys = KEYS | {node["id"]: key for key, node in self.nodes.items()}
        begin, end = keys[link["origin_id"]], keys[link["target_id"]]
        output, input = link["origin_slot"], link["target_slot"]
        leaves = measured.outputs[begin][output] if begin in self.nodes else at_end(output)
        enters = measured.inputs[end][input] if end in self.nodes else at_end(input)
        return Link(link["id"], begin, output, leaves, end, enters)

    def uuid(self, *names: str) -> str:
        """Always the same for the same thing, so that saved graphs find it again."""
        return str(uuid5(NAMESPACE_URL, "/".join(("hallo3", self.name, *names))))

    def definition(self) -> dict:
        state = {
            "lastNodeId": self.drawn["last_node_id"],
            "lastLinkId": max(link["id"] for link in self.links),
            "lastGroupId": 0,
            "lastRerouteId": len(self.reroutes),
        }
        return {
            "id": self.uuid(),
            "version": 1,
            "state": state,
            "revision": 0,
            "config": {},
            "name": self.name,
            "description": self.blueprint.description,
            "category": CATEGORY,
            "inputNode": {"id": INPUT_NODE, "bounding": self.left},
            "outputNode": {"id": OUTPUT_NODE, "bounding": self.right},
            "inputs": self.inputs,
            "outputs": self.outputs,
            "widgets": [],
            "nodes": self.drawn["nodes"],
            "groups": [],
            "links": self.links,
            "reroutes": self.reroutes,
            "extra": {},
        }

    def node(self) -> dict:
        """The node that has the subgraph inside."""
        inputs = [
            {key: end[key] for key in ("name", "type", "shape") if key in end}
            | ({"widget": {"name": end["name"]}} if end["name"] in self.widgets else {})
            | {"link": None}
            for end in self.inputs
        ]
        outputs = [{"name": end["name"], "type": end["type"], "links": []} for end in self.outputs]
        return {
            "id": self.drawn["last_node_id"] + 1,
            "type": self.uuid(),
            "title": self.name,
            "pos": [0, 0],
            "size": [OUTSIDE, ROW],  # as high as it needs to be
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": inputs,
            "outputs": outputs,
            "properties": {},
            "widgets_values": [*self.widgets.values()],
        }

    def file(self) -> dict:
        return {
            "id": self.uuid("file"),
            "revision": 0,
            "last_node_id": self.drawn["last_node_id"] + 1,
            "last_link_id": 0,
            "nodes": [self.node()],
            "links": [],
            "groups": [],
            "definitions": {"subgraphs": [self.definition()]},
            "config": {},
            "extra": {},
            "version": 0.4,
        }


def at_end(slot: int) -> int:
    """How far a slot of an end of the subgraph is below where a node has the end of its title."""
    return ROW * (slot + 1) - TITLE


def one_type(socket: dict) -> str:
    """The type of a socket. Nodes that work on images or on a video work on a video here."""
    return "VIDEO" if socket["type"] in ("IMAGE,VIDEO", "*") else socket["type"]


def main() -> int:
    options = arguments(__doc__, BLUEPRINTS).parse_args()
    SUBGRAPHS.mkdir(exist_ok=True)
    for name, pages in each_with_pages(options.address, options.names):
        blueprint = BLUEPRINTS[name]
        workflow = Workflow(blueprint.closed())
        made = Subgraph(name, blueprint, measure(pages, workflow)).file()
        text = json.dumps(made, indent=1, ensure_ascii=False)
        (SUBGRAPHS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        keys = names(workflow) | {str(id): key for id, key in KEYS.items()}
        for page in pages:
            check(page, name, keys, show_inside(page, text))
        print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
