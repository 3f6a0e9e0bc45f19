"""Makes a Python environment and runs the pack in it. Needs only Python and pip.

    python run.py demo [options]            animate the example portrait and speech, or your own
    python run.py test [options]            run all tests; options go to pytest
    python run.py test --quick [options]    run some of them, from each part of the pack

The environments are in ~/.cache/hallo3, or in the folder of the variable HALLO3_ENVIRONMENTS. They
are used again until the requirements change.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("HALLO3_ENVIRONMENTS", Path.home() / ".cache" / "hallo3"))
REQUIREMENTS = {
    "demo": ("requirements.txt", "requirements-standalone.txt"),
    "test": (
        "requirements.txt",
        "requirements-standalone.txt",
        "requirements-faces.txt",
        "requirements-voices.txt",
        "requirements-batch.txt",
        "requirements-gguf.txt",
        "requirements-test.txt",
        "training/requirements.txt",
    ),
}

GROUPS = ("tests/core", "tests/host", "tests/web", "tests/training"), ("tests/card",)
"""Tests that share a process. Those on a card add a kind of device to torch and need their own."""
QUICK = [
    *(
        f"tests/core/test_{name}.py"
        for name in (
            *("rooms", "parity", "sampling", "checkpoint", "portrait", "speech", "sound"),
            *("animate", "outputs", "damaged_files", "wrong_files"),
        )
    ),
    *("tests/host/test_wrong_inputs.py", "tests/host/test_previews.py", "tests/web"),
    *("tests/training/test_loop.py", "tests/training/test_denoiser_training.py"),
]
"""Each part of the pack once, chosen by how long the files take."""
PARALLEL = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]
"""A process for each core, at most four because each takes 3 GB. A file is run by one process."""
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""One for each process. Tests that take two must not keep the other core busy while they wait."""
NO_TESTS = 5
"""What pytest returns if the options leave no test of a group."""

COMFYUI = "https://github.com/Comfy-Org/ComfyUI"
COMFYUI_VERSION = "v0.33.0"


def find_comfyui() -> Path | None:
    """The folder of the ComfyUI that the nodes are tested in, if there is one."""
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
    """Download the ComfyUI version that the pack is made for, if there is a network."""
    folder = CACHE / f"ComfyUI-{COMFYUI_VERSION}"
    clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", COMFYUI_VERSION, COMFYUI]
    print(f"Found no ComfyUI; cloning {COMFYUI} {COMFYUI_VERSION}.", flush=True)
    try:
        subprocess.run([*clone, folder], check=True, timeout=600)
    except (subprocess.SubprocessError, OSError):
        print("ComfyUI COULD NOT BE DOWNLOADED: THE TESTS OF THE NODES ARE SKIPPED.", flush=True)


def environment(name: str) -> Path:
    """The Python of the environment `name`, which is made if it is missing."""
    files = [ROOT / file for file in REQUIREMENTS[name]]
    if name == "test" and (comfyui := find_comfyui()):
        files.append(comfyui / "requirements.txt")
    content = b"".join(file.read_bytes() for file in files) + sys.version.encode()
    folder = CACHE / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "complete"
    if not complete.exists():
        print(f"Making the environment {folder}. This takes a few minutes, once.", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *(part for file in files for part in ("-r", file))], check=True)
        complete.touch()
    return python


def demo(options: list[str]) -> int:
    command = [environment("demo"), "-m", "hallo3_core", "animate", *options]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode


def check_types(python: Path) -> subprocess.CompletedProcess:
    """Run mypy on a copy of the code, in a folder whose name a Python package can have.

    Its output is returned, because tests print theirs at the same time.
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder, "hallo3")
        skipped = shutil.ignore_patterns("__pycache__", "weights", "example")
        for part in ("hallo3_core", "nodes"):
            shutil.copytree(ROOT / part, copy / part, ignore=skipped)
        for file in ("__init__.py", "pyproject.toml"):
            shutil.copy(ROOT / file, copy)
        check = [python, "-m", "mypy", "--cache-dir", CACHE / "mypy"]
        return subprocess.run(check, cwd=copy, stdout=subprocess.PIPE, text=True)


def test(options: list[str]) -> int:
    if find_comfyui() is None:
        clone_comfyui()
    python = environment("test")
    style = (["ruff", "check", "."], ["ruff", "format", "--check", "."])
    groups = (QUICK,) if "--quick" in options else GROUPS
    options = [option for option in options if option != "--quick"]
    tests = (["pytest", *PARALLEL, *places, *options] for places in groups)
    checks = ([python, "-m", *words] for words in (*style, *tests))
    with ThreadPoolExecutor() as beside:
        types = beside.submit(check_types, python)
        done = [subprocess.run(check, cwd=ROOT, env=os.environ | THREADS) for check in checks]
    print(types.result().stdout)
    status = [each.returncode for each in (types.result(), *done)]
    return max(0 if code == NO_TESTS else code for code in status)


def main() -> int:
    commands = {"demo": demo, "test": test}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__)
        return 2
    return commands[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
