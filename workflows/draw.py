"""Draws the shipped workflows in a running ComfyUI's own front end, and runs them.

    python workflows/draw.py http://127.0.0.1:8188 [NAME ...] [--run]

Every graph of `graphs.py`, or those named, becomes a .json (UI format) and a .jpg (a screenshot of
it) in this folder. With --run each one is queued from the browser, too, and must finish with a
video. Needs playwright and Chromium; the pack does not.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from graphs import DOWNLOADS, WORKFLOWS, Workflow
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
CANVAS = {"x": 60, "y": 40, "width": 1540, "height": 900}
"""The part of the page that shows the graph."""

DRAW = """async ([{nodes: spec, remarks, groups}, downloads]) => {
  const app = window.app, LiteGraph = window.LiteGraph;
  app.graph.clear();
  const nodes = {};
  for (const [key, [type, pos, widgets]] of Object.entries(spec)) {
    const node = LiteGraph.createNode(type);
    if (!node) throw new Error('no node ' + type);
    node.pos = pos;
    app.graph.add(node);
    for (const [name, value] of Object.entries(widgets)) {
      const widget = node.widgets.find(widget => widget.name === name);
      if (!widget) throw new Error(type + ' has no ' + name);
      widget.value = value;
    }
    for (const widget of node.widgets || [])
      if (widget.name === 'control_after_generate') widget.value = 'fixed';
    if (downloads[type]) {
      const [directory, place] = downloads[type];
      const name = place.split('/').pop();
      node.properties.models = [{name, url: 'https://huggingface.co/' + place, directory}];
    }
    nodes[key] = node;
  }
  for (const [key, [type, pos, widgets, links]] of Object.entries(spec))
    for (const [name, from] of Object.entries(links)) {
      const [source, output] = from.split('.');
      const slot = nodes[key].findInputSlot(name);
      if (slot < 0) throw new Error(type + ' has no input ' + name);
      nodes[source].connect(Number(output || 0), nodes[key], slot);
      await new Promise(done => setTimeout(done, 50));  // a batch grows its next input
    }
  for (const [pos, size, text] of remarks) {
    const note = LiteGraph.createNode('MarkdownNote');
    note.pos = pos;
    note.size = size;
    app.graph.add(note);
    note.widgets[0].value = text;
  }
  for (const [title, keys] of groups) {
    const group = new LiteGraph.LGraphGroup(title);
    const inside = keys.map(key => nodes[key]);
    for (const node of inside) node.mode = 4;  // bypassed
    group.resizeTo(inside, 20);
    app.graph.add(group);
  }
  return JSON.stringify(app.graph.serialize(), null, 1);
}"""

FIT = """() => {
  const canvas = window.app.canvas;
  if (canvas.ds.fitToBounds) {
    let box = [1e9, 1e9, -1e9, -1e9];
    for (const node of window.app.graph._nodes) {
      box[0] = Math.min(box[0], node.pos[0]); box[1] = Math.min(box[1], node.pos[1] - 30);
      box[2] = Math.max(box[2], node.pos[0] + node.size[0]);
      box[3] = Math.max(box[3], node.pos[1] + node.size[1]);
    }
    canvas.ds.fitToBounds(
      [box[0] - 130, box[1] - 170, box[2] - box[0] + 180, box[3] - box[1] + 310], {zoom: 1}
    );
  }
  canvas.setDirty(true, true);
}"""


def open_page(browser, address: str) -> Page:
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(address)
    page.wait_for_function("window.app && window.app.graph && window.LiteGraph", timeout=60_000)
    time.sleep(3)
    page.evaluate("() => window.app.extensionManager.setting.set('Comfy.Minimap.Visible', false)")
    return page


def as_json(workflow: Workflow) -> dict:
    note = ((340, 660), (310, 400), workflow.note)
    remarks = (note, *workflow.remarks)
    return {"nodes": workflow.nodes, "remarks": remarks, "groups": workflow.groups}


def run(page: Page, address: str, graph: str) -> list[str]:
    """Queue a graph from the browser; the names of the videos it saved."""
    page.evaluate("json => window.app.loadGraphData(JSON.parse(json))", graph)
    before = set(history(page, address))
    page.evaluate("() => window.app.queuePrompt(0)")
    for _ in range(300):
        time.sleep(2)
        new = {key: value for key, value in history(page, address).items() if key not in before}
        for entry in new.values():
            if entry["status"]["status_str"] != "success":
                raise SystemExit(json.dumps(entry["status"])[:2000])
            return [
                file["filename"]
                for output in entry["outputs"].values()
                for kind in output.values()
                for file in kind
                if isinstance(file, dict)
            ]
    raise SystemExit("no result after ten minutes")


def history(page: Page, address: str) -> dict:
    return page.request.get(f"{address}/history").json()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("names", nargs="*", default=list(WORKFLOWS))
    parser.add_argument("--run", action="store_true")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--headless", "--no-sandbox", "--disable-gpu"],
        )
        page = open_page(browser, options.address)
        for name in options.names:
            graph = page.evaluate(DRAW, [as_json(WORKFLOWS[name]), DOWNLOADS])
            (HERE / f"{name}.json").write_text(graph + "\n")
            page.evaluate("json => window.app.loadGraphData(JSON.parse(json))", graph)
            time.sleep(1)
            page.evaluate(FIT)
            time.sleep(1)
            page.screenshot(path=HERE / f"{name}.jpg", type="jpeg", quality=80, clip=CANVAS)
            made = run(page, options.address, graph) if options.run else []
            print(name, made, flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
