"""Draws the shipped workflows in the front end of a running ComfyUI, and runs them.

    python workflows/draw.py http://127.0.0.1:8188 [NAME ...] [--run]

Each graph of `graphs.py` (or each NAME) becomes a .json file in the UI format in this folder, and a
screenshot in docs/pictures/graphs. The layout is such that no node covers another, in the classic
and in the modern style of nodes. With --run, each graph is also queued from the browser in both
styles. It must finish with a video, and no node may cover another then either. The screenshot then
shows the results. Start ComfyUI with `--preview-method auto` for that. This script needs playwright
and Chromium; the pack does not.
"""

import argparse
import json
import sys
import time
from functools import reduce
from pathlib import Path

from graphs import WORKFLOWS
from layout import Grid, overlaps
from parts import DOWNLOADS, Workflow
from playwright.sync_api import Browser, Page, Playwright, sync_playwright
from routes import Link, Router
from wires import Wire, hidden

HERE = Path(__file__).resolve().parent
SCREENSHOTS = HERE.parent / "docs" / "pictures" / "graphs"
LEFT, TOP, BOTTOM = 60, 40, 20
"""What the front end shows beside the graph, in pixels of the page."""
SCALE, MARGIN = 0.5, 100
"""How large the graph is in its picture, and the space around it, in pixels of the graph."""
CLASSIC, MODERN = False, True
"""Styles of nodes."""

DRAW = """async ([spec, downloads]) => {
  const app = window.app, LiteGraph = window.LiteGraph;
  app.graph.clear();
  const nodes = {};
  for (const [key, [type, column, widgets, links, title]] of Object.entries(spec)) {
    const node = LiteGraph.createNode(type);
    if (!node) throw new Error('no node ' + type);
    node.pos = [400 * column, 60 * Object.keys(nodes).length];
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
  for (const [key, [type, column, widgets, links]] of Object.entries(spec))
    for (const [name, from] of Object.entries(links)) {
      const [source, output] = from.split('.');
      const slot = nodes[key].findInputSlot(name);
      if (slot < 0) throw new Error(type + ' has no input ' + name);
      nodes[source].connect(Number(output || 0), nodes[key], slot);
      await new Promise(done => setTimeout(done, 50));  // a batch grows its next input
    }
  return JSON.stringify(app.graph.serialize());
}"""

SOCKETS = """() => {
  const graph = window.app.graph;
  return [...graph.links.values()].map(link => {
    const source = graph.getNodeById(link.origin_id), target = graph.getNodeById(link.target_id);
    return [link.id, link.origin_id, link.origin_slot,
            source.getOutputPos(link.origin_slot)[1] - source.pos[1],
            link.target_id, target.getInputPos(link.target_slot)[1] - target.pos[1]];
  });
}"""
"""The links, and how far their ends are below the tops of their nodes."""

PLACE = """([places, groups, reroutes]) => {
  const graph = window.app.graph;
  for (const [id, [x, y, width]] of Object.entries(places)) {
    const node = graph.getNodeById(id);
    node.pos = [x, y];
    node.size = [width, node.size[1]];
    node.updateArea();
  }
  for (const [title, ids] of groups) {
    const group = new window.LiteGraph.LGraphGroup(title);
    const inside = ids.map(id => graph.getNodeById(id));
    for (const node of inside) node.mode = 4;  // bypassed
    group.resizeTo(inside, 20);
    graph.add(group);
  }
  for (const [id, parentId, x, y, linkIds] of reroutes) {
    graph.setReroute({id, parentId: parentId ?? undefined, pos: [x, y], linkIds});
    for (const link of linkIds) graph.links.get(link).parentId = id;
  }
  return JSON.stringify(graph.serialize(), null, 1);
}"""

BOXES = """() => {
  const canvas = window.app.canvas, {scale, offset} = canvas.ds;
  const page = canvas.canvas.getBoundingClientRect();
  const inGraph = element => {
    const box = element.getBoundingClientRect();
    return [(box.left - page.left) / scale - offset[0], (box.top - page.top) / scale - offset[1],
            (box.right - page.left) / scale - offset[0],
            (box.bottom - page.top) / scale - offset[1]];
  };
  return window.app.graph._nodes.map(node => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
    if (drawn) return [node.id, inGraph(drawn)];
    const [x, y, width, height] = node.getBounding();
    let box = [x, y, x + width, y + height];
    for (const {element} of node.widgets || []) {  // a video hangs below its node
      if (!element?.isConnected || !element.getBoundingClientRect().height) continue;
      const [left, top, right, bottom] = inGraph(element);
      box = [Math.min(box[0], left), Math.min(box[1], top),
             Math.max(box[2], right), Math.max(box[3], bottom)];
    }
    return [node.id, box];
  });
}"""
"""Left, top, right and bottom of every node with all that it shows."""

RECORD = """() => {
  for (const name of ['moveTo', 'lineTo', 'quadraticCurveTo', 'bezierCurveTo']) {
    const draw = Path2D.prototype[name];
    Path2D.prototype[name] = function (...numbers) {
      (this.drawn ??= []).push(numbers);
      return draw.apply(this, numbers);
    };
  }
}"""
"""Paths remember what is drawn in them."""

WIRES = """() => {
  const {graph, canvas} = window.app;
  canvas.draw(true, true);
  return [...graph.links.values()].map(link => {
    const paths = [link.path.drawn.slice(-2)];
    for (let id = link.parentId; id != null; id = graph.reroutes.get(id).parentId)
      paths.unshift(graph.reroutes.get(id).path.drawn.slice(-2));
    return [link.origin_id, link.origin_slot, link.target_id, link.target_slot, paths];
  });
}"""
"""The ends of every link, and the curves that are drawn of it."""

BOUNDS = """() => {
  const {_nodes, reroutes} = window.app.graph;
  const corners = _nodes.flatMap(({pos: [x, y], size: [width, height]}) =>
    [[x, y - 30], [x + width, y + height]]);
  for (const {pos: [x, y]} of reroutes.values()) corners.push([x, y - 30]);
  const [across, down] = [corners.map(each => each[0]), corners.map(each => each[1])];
  return [Math.min(...across), Math.min(...down), Math.max(...across), Math.max(...down)];
}"""
"""Left, top, right and bottom of the whole graph."""

FIT = """([left, top, scale]) => {
  const {canvas} = window.app;
  canvas.ds.scale = scale;
  canvas.ds.offset = [-left, -top];
  canvas.setDirty(true, true);
}"""

SET = "([name, value]) => window.app.extensionManager.setting.set(name, value)"


def chromium(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(
        executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox", "--disable-gpu"]
    )


def open_page(browser: Browser, address: str, style: bool) -> Page:
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.add_init_script(f"({RECORD})()")
    page.goto(address)
    page.wait_for_function("window.app && window.app.graph && window.LiteGraph", timeout=60_000)
    time.sleep(3)
    page.evaluate(SET, ["Comfy.Minimap.Visible", False])
    page.evaluate(SET, ["Comfy.RightSidePanel.IsOpen", False])
    page.evaluate(SET, ["Comfy.VueNodes.Enabled", style])
    page.evaluate(SET, ["LiteGraph.Canvas.MinFontSizeForLOD", 0])  # text however small
    return page


def show(page: Page, graph: str) -> dict[str, list[float]]:
    """The boxes of its nodes, by their ids."""
    page.evaluate("json => window.app.loadGraphData(JSON.parse(json))", graph)
    time.sleep(2)
    fit(page, page.evaluate(BOUNDS))
    return boxes(page)


def fit(page: Page, box: list[float]) -> None:
    """Make the page so large that it shows this part of the graph, and go there."""
    left, top, right, bottom = (box[0] - MARGIN, box[1] - MARGIN, box[2] + MARGIN, box[3] + MARGIN)
    width, height = round(SCALE * (right - left)), round(SCALE * (bottom - top))
    page.set_viewport_size({"width": LEFT + width, "height": TOP + height + BOTTOM})
    page.evaluate(FIT, [left - LEFT / SCALE, top - TOP / SCALE, SCALE])
    time.sleep(1)


def picture(page: Page, name: str) -> None:
    size = page.viewport_size
    width, height = size["width"] - LEFT, size["height"] - TOP - BOTTOM
    clip = {"x": LEFT, "y": TOP, "width": width, "height": height}
    page.screenshot(path=SCREENSHOTS / f"{name}.jpg", type="jpeg", quality=80, clip=clip)


def boxes(page: Page) -> dict[str, list[float]]:
    return {str(id): box for id, box in page.evaluate(BOXES)}


def draw(pages: list[Page], workflow: Workflow) -> str:
    """The graph, laid out by the larger of the sizes that its nodes have in both styles."""
    classic = pages[-1]
    graph = classic.evaluate(DRAW, [workflow.nodes, DOWNLOADS])
    ids = {key: str(id) for id, key in enumerate(workflow.nodes, 1)}
    shown = [show(page, graph) for page in pages]
    sizes = {}
    for key, id in ids.items():
        found = [each[id] for each in shown]
        sizes[key] = tuple(max(box[i + 2] - box[i] for box in found) for i in (0, 1))
    keys = {id: key for key, id in ids.items()}
    links = [
        Link(id, keys[str(source)], output, leaves, keys[str(target)], enters)
        for id, source, output, leaves, target, enters in classic.evaluate(SOCKETS)
    ]
    router = Router(Grid(workflow, sizes), links)
    router.improve()
    places, reroutes = router.drawn()
    places = {ids[key]: place for key, place in places.items()}
    groups = [(group.title, [ids[key] for key in group.nodes]) for group in workflow.groups]
    return classic.evaluate(PLACE, [places, groups, reroutes])


def run(page: Page, address: str) -> tuple[list[str], dict[str, list[float]]]:
    """Queue what is shown: the names of the files it saved, and the largest boxes of its nodes."""
    page.request.post(f"{address}/free", data={"unload_models": True, "free_memory": True})
    page.request.delete(f"{address}/hallo3/segments")
    before, most = set(history(page, address)), boxes(page)
    page.evaluate("() => window.app.queuePrompt(0)")
    for _ in range(1200):
        time.sleep(0.5)
        most = {id: union(most[id], box) for id, box in boxes(page).items()}
        new = {key: value for key, value in history(page, address).items() if key not in before}
        for entry in new.values():
            if entry["status"]["status_str"] != "success":
                raise SystemExit(json.dumps(entry["status"])[:2000])
            time.sleep(8)  # until the results are there, and what says so is gone
            most = {id: union(most[id], box) for id, box in boxes(page).items()}
            return files_of(entry), most
    raise SystemExit("no result after ten minutes")


def union(one: list[float], other: list[float]) -> list[float]:
    return [*map(min, one[:2], other[:2]), *map(max, one[2:], other[2:])]


def files_of(entry: dict) -> list[str]:
    return [
        file["filename"]
        for output in entry["outputs"].values()
        for kind in output.values()
        for file in kind
        if isinstance(file, dict) and file["type"] == "output"
    ]


def history(page: Page, address: str) -> dict:
    return page.request.get(f"{address}/history").json()


def drawn_wires(page: Page, keys: dict[str, str]) -> list[Wire]:
    """The wires as they are drawn. `keys` are the names of the nodes, by their ids."""
    wires = []
    for source, output, target, input, paths in page.evaluate(WIRES):
        ends = keys[str(source)], keys[str(target)]
        curves = [(tuple(begin), *batched(curve)) for begin, curve in paths]
        wires.append(Wire(f"{ends[0]}.{output} > {ends[1]}.{input}", ends, curves))
    return wires


def check(page: Page, name: str, workflow: Workflow, found: dict[str, list[float]]) -> None:
    """No node covers another, or a wire."""
    keys = {str(id): key for id, key in enumerate(workflow.nodes, 1)}
    named = {keys[id]: tuple(box) for id, box in found.items()}
    faults = [f"{a} and {b} cover each other" for a, b in overlaps(named)]
    faults += [f"{wire} is behind {node}" for wire, node in hidden(drawn_wires(page, keys), named)]
    if faults:
        raise SystemExit(f"{name}: " + ", ".join(faults))


def batched(numbers: list[float]) -> list[tuple[float, float]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("names", nargs="*", default=list(WORKFLOWS))
    parser.add_argument("--run", action="store_true")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        for name in options.names:
            # new ones: the front end keeps previews by the number of a node, of any workflow
            pages = [open_page(browser, options.address, style) for style in (MODERN, CLASSIC)]
            graph = draw(pages, WORKFLOWS[name])
            (HERE / f"{name}.json").write_text(graph + "\n")
            for page in pages:
                check(page, name, WORKFLOWS[name], show(page, graph))
                if options.run:
                    made, largest = run(page, options.address)
                    check(page, name, WORKFLOWS[name], largest)
                    fit(page, reduce(union, [page.evaluate(BOUNDS), *largest.values()]))
                    print(name, made, flush=True)
            picture(page, name)
            for page in pages:
                page.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
