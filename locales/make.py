"""Writes the texts of the nodes into the files that show them. Run it when a text has changed:

    python -m locales.make

The texts stand in the nodes themselves (`nodes/`), and nowhere else by hand. They are written to
`locales/en/nodeDefs.json`, which translations start from, and to the help pages in `web/docs/`. A
help page begins with the title and the description of its node; what follows is written by hand,
up to the tables of inputs and outputs.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.comfyui_server import free_port, running
from run import find_comfyui

ROOT = Path(__file__).resolve().parents[1]
DEFINITIONS = ROOT / "locales" / "en" / "nodeDefs.json"
PAGES = ROOT / "web" / "docs"
TABLES = ("Inputs", "Outputs")


def files(nodes: dict[str, dict]) -> dict[Path, str]:
    """What each file should say, from the nodes as ComfyUI lists them at /object_info."""
    nodes = {name: node for name, node in nodes.items() if name.startswith("Hallo3")}
    definitions = {name: definition(node) for name, node in nodes.items()}
    pages = {PAGES / f"{name}.md": node for name, node in nodes.items()}
    written = {DEFINITIONS: json.dumps(definitions, indent=2, ensure_ascii=False) + "\n"}
    return written | {path: help_page(by_hand(path), node) for path, node in pages.items()}


def definition(node: dict) -> dict:
    """The texts of a node, in the layout that ComfyUI translates by."""
    inputs = {name: {"name": name, "tooltip": text} for name, _, text in inputs_of(node)}
    outputs = {
        str(index): {"name": name, "tooltip": text}
        for index, (name, _, text) in enumerate(outputs_of(node))
    }
    named = {key: node[key] for key in ("display_name", "description")}
    return named | {"inputs": inputs, "outputs": outputs}


def inputs_of(node: dict) -> Iterator[tuple[str, str, str]]:
    """Name, type and text of each input, in the order in which the node shows them."""
    for name, kind, options in sockets_of(node):
        yield name, options.get("template", {}).get("allowed_types", kind), options["tooltip"]


def sockets_of(node: dict) -> Iterator[tuple[str, str, dict]]:
    for group in ("required", "optional"):
        for name, (kind, options) in node["input"].get(group, {}).items():
            yield name, kind, options


def outputs_of(node: dict) -> Iterator[tuple[str, str, str]]:
    """Name, type and text of each output. It may have the type of what is connected to an input."""
    templates = [options.get("template", {}) for _, _, options in sockets_of(node)]
    types = {
        each["template_id"]: each["allowed_types"] for each in templates if "template_id" in each
    }
    kinds = node["output"]
    if matched := node.get("output_matchtypes"):
        kinds = [types.get(name, kind) for name, kind in zip(matched, kinds, strict=True)]
    return zip(node["output_name"], kinds, node["output_tooltips"], strict=True)


def by_hand(path: Path) -> list[str]:
    """The parts of a help page that are written by hand: before the tables, then after them."""
    text = path.read_text("utf-8") if path.exists() else ""
    first, *sections = text.strip().split("\n\n## ")
    prose = first.split("\n\n")[2:]
    return ["\n\n".join(prose), *(s for s in sections if s.partition("\n")[0] not in TABLES)]


def help_page(by_hand: list[str], node: dict) -> str:
    prose, *after = by_hand
    optional = node["input"].get("optional", {})
    inputs = [
        (f"{name} (optional)" if name in optional else name, kind, text)
        for name, kind, text in inputs_of(node)
    ]
    parts = [
        f"# {node['display_name']}",
        node["description"],
        prose,
        f"## Inputs\n\n{table('input', inputs)}",
        f"## Outputs\n\n{table('output', outputs_of(node))}",
        *(f"## {section}" for section in after),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(kind: str, rows: Iterable[tuple[str, str, str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in [(kind, "type", "meaning"), *rows]]
    return "\n".join([lines[0], "|---|---|---|", *lines[1:]])


def main() -> None:
    argparse.ArgumentParser(prog="python -m locales.make", description=__doc__).parse_args()
    with running(find_comfyui(), free_port()) as server:
        nodes = server.ask("/object_info")
    for path, text in files(nodes).items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
