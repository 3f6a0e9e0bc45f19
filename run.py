"""Sets up an environment of its own and runs the pack in it, with nothing but Python and pip.

    python run.py demo [options]    animate the example, or what --portrait and --speech name
    python run.py test [options]    run all tests; options go to pytest

Environments are kept in ~/.cache/hallo3 (or where HALLO3_ENVIRONMENTS says), one for each content
of the requirements, and used again.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("HALLO3_ENVIRONMENTS", Path.home() / ".cache" / "hallo3"))
REQUIREMENTS = {
    "demo": ("requirements.txt", "requirements-standalone.txt"),
    "test": (
        "requirements.txt",
        "requirements-standalone.txt",
        "requirements-faces.txt",
        "requirements-test.txt",
        "training/requirements.txt",
    ),
}

ON_A_CARD = [
    f"tests/card/test_card{part}.py" for part in ("", "_core", "_core_faults", "_core_inputs")
]
"""The rest of the folder, ComfyUI and training on a card, is run by hand (CONTRIBUTING.md)."""
GROUPS = ("tests/core", "tests/host", "tests/training"), ON_A_CARD
"""Tests that share a process; those on a card make a kind of device, and are alone."""
NO_TESTS = 5
"""How pytest ends where the options leave no test of a group."""

COMFYUI = "https://github.com/Comfy-Org/ComfyUI"
COMFYUI_VERSION = "v0.33.0"


def find_comfyui() -> Path | None:
    """The ComfyUI checkout that the tests of the nodes run in."""
    places = (
        os.environ.get("COMFYUI_PATH"),
        ROOT.parent.parent,
        Path.home() / "ComfyUI",
        Path.home() / "comfy" / "ComfyUI",
        CACHE / f"ComfyUI-{COMFYUI_VERSION}",
    )
    for place in filter(None, places):
        if (Path(place) / "comfy" / "model_base.py").is_file():
            return Path(place)
    return None


def clone_comfyui() -> None:
    """Bring the ComfyUI that the pack was made for, where there is a network."""
    folder = CACHE / f"ComfyUI-{COMFYUI_VERSION}"
    clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", COMFYUI_VERSION, COMFYUI]
    print(f"Found no ComfyUI; cloning {COMFYUI} {COMFYUI_VERSION}.", flush=True)
    try:
        subprocess.run([*clone, folder], check=True, timeout=600)
    except (subprocess.SubprocessError, OSError):
        print("NO ComfyUI COULD BE HAD: THE TESTS OF THE NODES ARE SKIPPED.", flush=True)


def environment(name: str) -> Path:
    """The Python of the environment `name`, made if it is not there yet."""
    files = [ROOT / file for file in REQUIREMENTS[name]]
    if name == "test" and (comfyui := find_comfyui()):
        files.append(comfyui / "requirements.txt")
    content = b"".join(file.read_bytes() for file in files) + sys.version.encode()
    folder = CACHE / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "complete"
    if not complete.exists():
        print(f"Setting up {folder}; this takes a few minutes once.", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *(part for file in files for part in ("-r", file))], check=True)
        complete.touch()
    return python


def demo(options: list[str]) -> int:
    command = [environment("demo"), "-m", "hallo3_core", "animate", *options]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode


def test(options: list[str]) -> int:
    if find_comfyui() is None:
        clone_comfyui()
    python = environment("test")
    style = (["ruff", "check", "."], ["ruff", "format", "--check", "."])
    tests = (["pytest", *places, *options] for places in GROUPS)
    checks = ([python, "-m", *words] for words in (*style, *tests))
    status = [subprocess.run(check, cwd=ROOT).returncode for check in checks]
    return max(0 if code == NO_TESTS else code for code in status)


def main() -> int:
    commands = {"demo": demo, "test": test}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__)
        return 2
    return commands[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
