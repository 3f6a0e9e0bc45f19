"""ComfyUI's front end in Chromium: shows graphs, runs them, and says where their parts are."""

import json
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright, sync_playwright
from wires import Curve

LEFT, TOP, BOTTOM = 60, 40, 20
"""What the front end shows beside the graph, in pixels of the page."""
SCALE, MARGIN = 0.5, 100
"""How large the graph is in its picture, and the space around it, in pixels of the graph."""
CLASSIC, MODERN = False, True
"""Styles of nodes."""

BOXES = """() => {
  const canvas = window.app.canvas, {scale, offset} = canvas.ds;
  const page = canvas.canvas.getBoundingClientRect();
  const inGraph = element => {
    const box = element.getBoundingClientRect();
    return [(box.left - page.left) / scale - offset[0], (box.top - page.top) / scale - offset[1],
            (box.right - page.left) / scale - offset[0],
            (box.bottom - page.top) / scale - offset[1]];
  };
  const ends = [canvas.graph.inputNode, canvas.graph.outputNode].filter(end => end);
  return [...canvas.graph._nodes, ...ends].map(node => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
    if (drawn) return [node.id, inGraph(drawn)];
    const [x, y, width, height] = node.getBounding ? node.getBounding() : node.boundingRect;
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
"""Left, top, right and bottom of every node with all that it shows; also of a subgraph's ends."""

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
  const {canvas} = window.app, {graph} = canvas;
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
  const {_nodes, reroutes, inputNode, outputNode} = window.app.canvas.graph;
  const ends = [inputNode, outputNode].filter(end => end);
  const corners = [..._nodes, ...ends].flatMap(({pos: [x, y], size: [width, height]}) =>
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

OPEN = """() => {
  const {graph, canvas} = window.app, [node] = graph._nodes;
  canvas.openSubgraph(node.subgraph, node);
}"""

SET = "([name, value]) => window.app.extensionManager.setting.set(name, value)"


def arguments(says: str, names: Iterable[str]) -> ArgumentParser:
    """The address of ComfyUI, and which graphs: all of `names`, or those that are given."""
    parser = ArgumentParser(description=says.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("names", nargs="*", default=list(names))
    return parser


def each_with_pages(address: str, names: list[str]) -> Iterator[tuple[str, list[Page]]]:
    """Yield each name, with a page of the modern and one of the classic style.

    Each gets new ones: the front end keeps values and previews by the number of a node, of any
    graph.
    """
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        for name in names:
            pages = [open_page(browser, address, style) for style in (MODERN, CLASSIC)]
            yield name, pages
            for page in pages:
                page.close()
        browser.close()


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
    for shown in (
        "Minimap.Visible",
        "RightSidePanel.IsOpen",
        "Graph.CanvasInfo",
        "Graph.CanvasMenu",
    ):
        page.evaluate(SET, [f"Comfy.{shown}", False])
    page.evaluate(SET, ["Comfy.VueNodes.Enabled", style])
    page.evaluate(SET, ["LiteGraph.Canvas.MinFontSizeForLOD", 0])  # text however small
    return page


def show(page: Page, graph: str) -> dict[str, list[float]]:
    """The boxes of its nodes, by their ids."""
    page.evaluate("json => window.app.loadGraphData(JSON.parse(json))", graph)
    time.sleep(2)
    fit(page, page.evaluate(BOUNDS))
    return boxes(page)


def show_inside(page: Page, blueprint: str) -> dict[str, list[float]]:
    """The boxes of the nodes in the subgraph of a blueprint."""
    show(page, blueprint)
    page.evaluate(OPEN)
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


def boxes(page: Page) -> dict[str, list[float]]:
    return {str(id): box for id, box in page.evaluate(BOXES)}


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


def curves(paths: list[list[list[float]]]) -> list[Curve]:
    """A wire, from what its paths remember: each begins somewhere, and goes on with a curve."""
    return [(tuple(begin), *zip(curve[::2], curve[1::2], strict=True)) for begin, curve in paths]


def picture(page: Page, file: Path) -> None:
    """A screenshot of the graph, without what is beside it."""
    size = page.viewport_size
    width, height = size["width"] - LEFT, size["height"] - TOP - BOTTOM
    clip = {"x": LEFT, "y": TOP, "width": width, "height": height}
    page.screenshot(path=file, type="jpeg", quality=80, clip=clip)
