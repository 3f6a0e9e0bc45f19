"""The layout of the code: packages, rooms of `hallo3_core`, and their imports."""

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
    "quantization",
    "network",
    "autoencoder",
    "sound",
    "media",
    "checkpoints",
    "text",
    "prompts",
    "portrait",
    "speech",
    "memory",
    "model",
    "sampling",
    "settings",
    "store",
    "clip",
    "prediction",
    "animate",
    "examples",
    "parallel",
    "builtin",
    "evaluation",
    "cli",
    "__main__",
)
"""A room may import only from the rooms before it. docs/architecture.md describes them."""
PACKAGES = {
    "hallo3_core": (),
    "nodes": ("hallo3_core", "comfy"),
    "workflows": (),
    "training": ("hallo3_core",),
    "benchmarks": ("hallo3_core", "training", "run", "tests"),
    "tests": ("hallo3_core", "training", "benchmarks", "run", "workflows"),
}
"""The packages of the repository that each package may import."""
STAND_INS = ("tests.host.comfyui", "tests.pretended")
"""Benchmarks may import only these of the tests: a ComfyUI without its server, and pretended cards.

The tests own both. A benchmark measures in them what the tests check in them.
"""
LINES, FUNCTION, FILES = 350, 60, 9


def core_files() -> Iterator[Path]:
    return (file for file in sorted(CORE.rglob("*.py")) if file != CORE / "__init__.py")


def package_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def imports(file: Path) -> Iterator[list[str]]:
    """Every module that a file imports, as the parts of its path from the repository root."""
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


def test_packages_import_only_what_they_may():
    for file in package_files():
        own = file.relative_to(ROOT).parts[0]
        for parts in imports(file):
            if parts[0] in (*PACKAGES, "run", "comfy") and parts[0] != own:
                assert parts[0] in PACKAGES[own], f"{file}: {parts}"
            if own == "benchmarks" and parts[0] == "tests":
                assert ".".join(parts).startswith(STAND_INS), f"{file}: {parts}"


@pytest.mark.parametrize("file", list(core_files()), ids=lambda file: str(file.relative_to(CORE)))
def test_imports_go_one_way(file):
    own = room_of(file.relative_to(ROOT).parts)
    for parts in imports(file):
        if parts[0] == CORE.name:
            assert ROOMS.index(room_of(parts)) <= ROOMS.index(own), f"{file} imports {parts}"


def test_every_room_is_in_the_documentation():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in ROOMS:
        assert f"`{room}/`" in text or f"`{room}.py`" in text, room
    found = {room_of(file.relative_to(ROOT).parts) for file in core_files()}
    assert found == set(ROOMS)


def test_the_longest_chain_of_imports_is_in_the_documentation():
    edges: dict[str, set[str]] = {room: set() for room in ROOMS}
    for file in core_files():
        own = room_of(file.relative_to(ROOT).parts)
        edges[own] |= {room_of(parts) for parts in imports(file) if parts[0] == CORE.name} - {own}
    chains: dict[str, list[str]] = {}
    for room in ROOMS:  # imports go to rooms before it
        below = [chains[other] for other in ROOMS if other in edges[room]]
        chains[room] = [room, *max(below, key=len, default=[])]
    longest = max(chains.values(), key=len)
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert " > ".join(f"`{room}`" for room in longest) in " ".join(text.split())


def test_rooms_files_and_functions_are_small():
    for file in package_files():
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= LINES, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < FUNCTION, f"{file}: {node.name}"
    for room in ROOMS:
        files = [file for file in (CORE / room).glob("*.py") if file.name != "__init__.py"]
        assert len(files) <= FILES, room
