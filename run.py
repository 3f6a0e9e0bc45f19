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
    "test": ("requirements.txt", "requirements-standalone.txt", "requirements-test.txt"),
}


COMFYUI_PLACES = (
    Path(os.environ.get("COMFYUI_PATH", ROOT.parent.parent)),
    ROOT.parent.parent,
    Path.home() / "ComfyUI",
    Path.home() / "comfy" / "ComfyUI",
)


def comfyui_requirements() -> list[Path]:
    """What the ComfyUI that the tests run in needs, if there is one."""
    files = (place / "requirements.txt" for place in COMFYUI_PLACES)
    return [file for file in files if (file.parent / "comfy" / "model_base.py").exists()][:1]


def environment(name: str) -> Path:
    """The Python of the environment `name`, made if it is not there yet."""
    files = [ROOT / file for file in REQUIREMENTS[name]]
    files += comfyui_requirements() if name == "test" else []
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
    python = environment("test")
    checks = (
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "ruff", "format", "--check", "."],
        [python, "-m", "pytest", "tests", *options],
    )
    return max(subprocess.run(check, cwd=ROOT).returncode for check in checks)


def main() -> int:
    commands = {"demo": demo, "test": test}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__)
        return 2
    return commands[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
