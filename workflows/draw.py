"""Draws the shipped workflows in the front end of a running ComfyUI, and runs them.

    python workflows/draw.py http://127.0.0.1:8188 [NAME ...] [--run]

Each graph of `graphs.py` (or each NAME) becomes a .json file in the UI format in this folder, and a
screenshot in docs/pictures/graphs. The layout is such that no node covers another, that frames
are around whole nodes, and that no wire is behind a node, in the classic and in the modern style of
nodes. With --run, each graph is also queued from the browser in both styles. It must finish with a
video, and all nodes and wires must be seen then too. The screenshot then shows the results. Start
ComfyUI with `--preview-method auto` for that. This script needs playwright and Chromium; the pack
does not.
"""

import json
import sys
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from frames import astride, colour, frame, grouped
from front_end import (
    BOUNDS,
    WIRES,
    arguments,
    curves,
    each_with_pages,
    fit,
    picture,
    run,
    show,
    union,
)
from graphs import WORKFLOWS
from layout import Grid, Sizes, overlaps
from parts import DOWNLOADS, Workflow
from playwright.sync_api import Page
from routes import Link, routed
from wires import Wire, hidden

HERE = Path(__file__).resolve().parent
SCREENSHOTS = HERE.parent / "docs" / "pictures" / "graphs"

DRAW = """async ([spec, downloads]) => {
  const app = window.app, LiteGraph = window.LiteGraph;
  app.graph.clear();
  const nodes = {};
  for (const [key, [type, place, widgets, links, title]] of Object.entries(spec)) {
    const node = LiteGraph.createNode(type);
    if (!node) throw new Error('no node ' + type);
    if (title) node.title = title;
    app.graph.add(node);
    for (const [name, value] of Object.entries(widgets)) {
      const widget = node.widgets.find(widget => widget.name === name);
      if (name === 'height') node.size = [310, value];
      else if (!widget) throw new Error(type + ' has no ' + name);
      else widget.value = value;
    }
    for (const widget of node.widgets || [])
      if (widget.name === 'control_after_generate') widget.value = 'fixed';
    if (downloads[type]) {
      const [directory, name, place] = downloads[type];
      node.properties.models = [{name, url: 'https://huggingface.co/' + place, directory}];
    }
    nodes[key] = node;
  }
  for (const [key, [type, place, widgets, links]] of Object.entries(spec))
    for (const [name, from] of Object.entries(links)) {
      const [source, output] = from.split('.');
      const slot = nodes[key].findInputSlot(name);
      if (slot < 0) throw new Error(type + ' has no input ' + name);
      nodes[source].connect(Number(output || 0), nodes[key], slot);
      await new Promise(done => setTimeout(done, 50));  // a batch grows its next input
    }
  return JSON.stringify(app.graph.serialize());
}"""

SOCKETS = """() => Object.fromEntries(window.app.graph._nodes.map(node => {
  const down = position => position[1] - node.pos[1];
  return [node.id, [(node.inputs || []).map((_, slot) => down(node.getInputPos(slot))),
                    (node.outputs || []).map((_, slot) => down(node.getOutputPos(slot)))]];
}))"""
"""How far the inputs and the outputs of each node are below its top."""

PLACE = """([places, groups, bypassed, reroutes]) => {
  const graph = window.app.graph;
  for (const [id, [x, y, width]] of Object.entries(places)) {
    const node = graph.getNodeById(id);
    node.pos = [x, y];
    node.size = [width, node.size[1]];
    node.updateArea();
  }
  for (const [title, colour, [x, y, width, height]] of groups) {
    const group = new window.LiteGraph.LGraphGroup(title);
    group.color = window.LGraphCanvas.node_colors[colour].groupcolor;
    group.pos = [x, y];
    group.size = [width, height];
    graph.add(group);
  }
  for (const id of bypassed) graph.getNodeById(id).mode = 4;
  for (const [id, parentId, x, y, linkIds] of reroutes) {
    graph.setReroute({id, parentId: parentId ?? undefined, pos: [x, y], linkIds});
    for (const link of linkIds) graph.links.get(link).parentId = id;
  }
  return JSON.stringify(graph.serialize(), null, 1);
}"""

FRAMES = """() => window.app.canvas.graph._groups.map(
  ({title, pos: [x, y], size: [width, height]}) => [title, [x, y, x + width, y + height]])"""
"""The title, left, top, right and bottom of every frame."""


class Measured(NamedTuple):
    """A graph that is not laid out."""

    saved: dict
    sizes: Sizes
    """The larger of those that a node has in both styles."""
    inputs: dict[str, list[float]]
    outputs: dict[str, list[float]]
    """How far they are below the top of each node."""


def measure(pages: list[Page], workflow: Workflow) -> Measured:
    classic = pages[-1]
    graph = classic.evaluate(DRAW, [workflow.nodes, DOWNLOADS])
    shown = [show(page, graph) for page in pages]
    sockets = classic.evaluate(SOCKETS)
    sizes, inputs, outputs = {}, {}, {}
    for id, key in names(workflow).items():
        found = [each[id] for each in shown]
        sizes[key] = tuple(max(box[i + 2] - box[i] for box in found) for i in (0, 1))
        inputs[key], outputs[key] = sockets[id]
    saved = classic.evaluate("() => JSON.stringify(window.app.graph.serialize())")
    return Measured(json.loads(saved), sizes, inputs, outputs)


def names(workflow: Workflow) -> dict[str, str]:
    """The keys of the nodes, by their numbers in the front end."""
    return {str(id): key for id, key in enumerate(workflow.nodes, 1)}


def draw(pages: list[Page], workflow: Workflow) -> str:
    """The graph, laid out."""
    workflow = grouped(workflow)
    measured, keys = measure(pages, workflow), names(workflow)
    grid, links = Grid(workflow, measured.sizes), []
    for id, source, output, target, input, _ in measured.saved["links"]:
        begin, end = keys[str(source)], keys[str(target)]
        leaves, enters = measured.outputs[begin][output], measured.inputs[end][input]
        links.append(Link(id, begin, output, leaves, end, enters))
    places, reroutes = routed(grid, links)
    frames = [(each.title, colour(each), frame(each, places, grid)) for each in workflow.groups]
    bypassed = [id for id, key in keys.items() if key in workflow.bypassed]
    places = {id: places[key] for id, key in keys.items()}
    return pages[-1].evaluate(PLACE, [places, frames, bypassed, reroutes])


def drawn_wires(page: Page, keys: dict[str, str]) -> list[Wire]:
    """The wires as they are drawn."""
    wires = []
    for source, output, target, input, paths in page.evaluate(WIRES):
        ends = keys[str(source)], keys[str(target)]
        wires.append(Wire(f"{ends[0]}.{output} > {ends[1]}.{input}", ends, curves(paths)))
    return wires


def check(page: Page, name: str, keys: dict[str, str], found: dict[str, list[float]]) -> None:
    """No node covers another, or a wire, or the edge of a frame, and no frame another one.

    `keys` are the names of the nodes, by their numbers.
    """
    frames = {title: tuple(box) for title, box in page.evaluate(FRAMES)}
    named = {keys[id]: tuple(box) for id, box in found.items()}
    covered = [*overlaps(named), *overlaps(frames), *astride(frames, named)]
    faults = [f"{a} and {b} cover each other" for a, b in covered]
    faults += [f"{wire} is behind {node}" for wire, node in hidden(drawn_wires(page, keys), named)]
    if faults:
        raise SystemExit(f"{name}: " + ", ".join(faults))


def main() -> int:
    parser = arguments(__doc__, WORKFLOWS)
    parser.add_argument("--run", action="store_true")
    options = parser.parse_args()
    for name, pages in each_with_pages(options.address, options.names):
        graph, keys = draw(pages, WORKFLOWS[name]), names(WORKFLOWS[name])
        (HERE / f"{name}.json").write_text(graph + "\n")
        for page in pages:
            check(page, name, keys, show(page, graph))
            if options.run:
                made, largest = run(page, options.address)
                check(page, name, keys, largest)
                fit(page, reduce(union, [page.evaluate(BOUNDS), *largest.values()]))
                print(name, made, flush=True)
        picture(pages[-1], SCREENSHOTS / f"{name}.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
