"""Writes the texts of the nodes into the files that show them. Run it when a text has changed:

    python -m locales.make

The English texts stand in the nodes themselves (`nodes/`), and nowhere else by hand. They are
written to `locales/en/nodeDefs.json` and to the help pages in `web/docs/`. A help page begins with
the title and the description of its node; what follows is written by hand, up to the tables of
inputs and outputs. The other files of `locales/en/` are written by hand: the texts of the settings.

All of it is then written in the languages of `locales/*.json`. Texts that lack a translation are
printed, and stand empty in that file, to be filled in. Texts that are no longer used are taken out
of it.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.comfyui_server import free_port, running
from locales.translate import Translation, as_json, languages
from run import find_comfyui

ROOT = Path(__file__).resolve().parents[1]
LOCALES = ROOT / "locales"
DEFINITIONS = LOCALES / "en" / "nodeDefs.json"
PAGES = ROOT / "web" / "docs"
TABLES = ("Inputs", "Outputs")


def files(nodes: dict[str, dict]) -> dict[Path, str]:
    """What each file should say, from the nodes as ComfyUI lists them at /object_info."""
    nodes = {name: node for name, node in nodes.items() if name.startswith("Hallo3")}
    definitions = {name: definition(node) for name, node in nodes.items()}
    pages = {PAGES / f"{name}.md": node for name, node in nodes.items()}
    written = {DEFINITIONS: as_json(definitions)}
    written |= {path: help_page(by_hand(path), node) for path, node in pages.items()}
    for language in languages():
        written |= translated(language, nodes, definitions)
    return written


def translated(say: Translation, nodes: dict[str, dict], definitions: dict) -> dict[Path, str]:
    """The files of a language, and its translations: those that are used, in their order."""
    folder = LOCALES / say.language
    written = {folder / "nodeDefs.json": as_json(say.tree(definitions))}
    for path in sorted(DEFINITIONS.parent.glob("*.json")):
        if path != DEFINITIONS:
            written[folder / path.name] = as_json(say.tree(json.loads(path.read_text("utf-8"))))
    for name, node in nodes.items():
        prose = [say.prose(part) for part in by_hand(PAGES / f"{name}.md")]
        written[PAGES / name / f"{say.language}.md"] = help_page(prose, node, say)
    return written | {say.path: as_json(say.asked)}


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


def help_page(by_hand: list[str], node: dict, say: Callable[[str], str] = str) -> str:
    """The page in the language of `say`; `by_hand` is in that language already."""
    prose, *after = by_hand
    optional = node["input"].get("optional", {})
    inputs = [
        (f"{label(name, say)} ({say('optional')})" if name in optional else label(name, say), *rest)
        for name, *rest in inputs_of(node)
    ]
    outputs = [(label(name, say), *rest) for name, *rest in outputs_of(node)]
    parts = [
        f"# {say(node['display_name'])}",
        say(node["description"]),
        prose,
        f"## {say('Inputs')}\n\n{table(say('input'), inputs, say)}",
        f"## {say('Outputs')}\n\n{table(say('output'), outputs, say)}",
        *(f"## {section}" for section in after),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def label(name: str, say: Callable[[str], str]) -> str:
    """The name that the user sees, and the one that graphs and the text by hand have."""
    return name if say(name) == name else f"{say(name)} `{name}`"


def table(kind: str, rows: Iterable[tuple], say: Callable[[str], str]) -> str:
    heading = (kind, say("type"), say("meaning"))
    rows = [heading, *((name, type_, say(text)) for name, type_, text in rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|", *lines[1:]])


def main() -> None:
    argparse.ArgumentParser(prog="python -m locales.make", description=__doc__).parse_args()
    with running(find_comfyui(), free_port()) as server:
        nodes = server.ask("/object_info")
    for path, text in files(nodes).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    for language in languages():
        for english in language.missing():
            print(f"not translated in {language.path.relative_to(ROOT)}: {english}")


if __name__ == "__main__":
    main()
