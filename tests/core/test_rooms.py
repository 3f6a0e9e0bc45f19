"""How the code is laid out: rooms of `hallo3_core`, and imports that go one way between them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "hallo3_core"
ROOMS = (
    "errors",
    "allocator",
    "noise",
    "onnx",
    "network",
    "autoencoder",
    "sound",
    "media",
    "checkpoints",
    "text",
    "portrait",
    "speech",
    "memory",
    "model",
    "sampling",
    "settings",
    "store",
    "animate",
    "builtin",
    "evaluation",
    "cli",
    "__main__",
)
"""Each imports only from those before it; docs/architecture.md says what is in them."""
LINES, FUNCTION, FILES = 350, 60, 8


def core_files() -> Iterator[Path]:
    return (file for file in sorted(CORE.rglob("*.py")) if file != CORE / "__init__.py")


def imports(file: Path) -> Iterator[list[str]]:
    """Every module that a file imports, as its parts from the root of the repository."""
    package = file.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) + 1 - node.level]) if node.level else []
            start += node.module.split(".") if node.module else []
            yield from ([*start, alias.name] for alias in node.names)


def room_of(parts: list[str]) -> str:
    return parts[1].removesuffix(".py")


@pytest.mark.parametrize("file", core_files(), ids=lambda file: str(file.relative_to(CORE)))
def test_imports_go_one_way(file):
    own = room_of(file.relative_to(ROOT).parts)
    for parts in imports(file):
        assert parts[0] not in ("nodes", "training", "benchmarks", "tests", "comfy"), parts
        if parts[0] == CORE.name:
            assert ROOMS.index(room_of(parts)) <= ROOMS.index(own), f"{file} imports {parts}"


def test_every_room_is_in_the_documentation():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in ROOMS:
        assert f"`{room}/`" in text or f"`{room}.py`" in text, room
    found = {room_of(file.relative_to(ROOT).parts) for file in core_files()}
    assert found == set(ROOMS)


def test_rooms_files_and_functions_are_small():
    for folder in (CORE, ROOT / "nodes", ROOT / "benchmarks"):
        for file in folder.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert len(text.splitlines()) <= LINES, file
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < FUNCTION, f"{file}: {node.name}"
    for room in ROOMS:
        files = [file for file in (CORE / room).glob("*.py") if file.name != "__init__.py"]
        assert len(files) <= FILES, room
