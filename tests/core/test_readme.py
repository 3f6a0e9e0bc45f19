"""The commands in README.md, docs/, the help pages and the notes of the workflows work.

The commands of `RUN` are run unchanged, one after the other, in the shell of a reader. Only git,
pip and huggingface.co are stand-ins. Commands that take minutes are only parsed. Links have a
target, and the errors that README explains are those of the code.
"""

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from test_convert import CONFIG, published
from test_download import Hub

import run as run_script
from hallo3_core.cli import main, parse
from hallo3_core.errors import InputError
from hallo3_core.model.finding import comfyui_folder
from parity import FIXTURES
from training import __main__ as training_commands
from training.world import __main__ as world

ROOT = Path(__file__).parents[2]

INSTALL = """cd ComfyUI/custom_nodes
git clone <this repository> ComfyUI-Hallo3
cd ComfyUI-Hallo3
pip install -r requirements.txt"""

RUN = (
    INSTALL,
    "python -m hallo3_core download",
    "python -m hallo3_core convert --dtype fp8_e4m3fn",
    "python -m hallo3_core check",
    "python -m hallo3_core convert",
)
"""The notes of all workflows have the last command."""

PARSED = (
    "python -m hallo3_core animate --portrait P --speech S --output O.mp4",
    "python -m hallo3_core batch JOBS.csv --output FOLDER",
    "python -m hallo3_core evaluate VIDEO...",
    "python -m hallo3_core plan",
    "python -m hallo3_core store --empty",
    "python run.py demo",
    "python run.py demo --portrait me.jpg --speech hello.mp3 --output me.mp4",
    "python run.py test",
    "python run.py test --quick",
    "python run.py test -k sampler",
    "python -m training builtin RUN",
    "python -m training measure RUN",
    "python -m training measure RUN --undistilled",
    "python -m training measure-pairs RUN",
    "python -m training measure-redub RUN",
    "python -m training drift RUN",
    "python -m training sensitivity RUN",
    "python -m training finetune RUN --model FOLDER --clips FOLDER",
    "python -m training finetune RUN --model FOLDER --clips FOLDER --lora 16",
    "python -m training distill RUN --model FOLDER --clips FOLDER --lora 64",
    "python -m training memory",
    "python -m training.world sheet people.png",
    "python -m training.world clip 3 out.mp4",
)
"""Too long to run here. tests/core/test_command_line.py runs the first and similar ones."""

HELP = (
    "python tests/parity.py tests/fixtures",
    "python -m benchmarks",
    *(
        f"python -m benchmarks.{name}"
        for name in (
            *("batch", "card_memory", "cards", "directing", "full_size"),
            *("host_modes", "host_step", "killed", "few_steps", "pauses", "scale"),
        )
    ),
    "python -m benchmarks.comfyui_flags --small-vae --seconds 1.96",
    "python -m benchmarks --size full --save FILE",
    "python -m benchmarks.card --save FILE",
    "python -m benchmarks.conversion FOLDER",
    "python -m benchmarks.host_memory COMFYUI",
    "python -m benchmarks.modes --steps 20",
    "python -m locales.make",
)
"""Only `--help` of these is run. It must list the options."""

PIP = (
    "pip install -r requirements.txt -r requirements-standalone.txt",
    "pip install -r requirements.txt -r requirements-standalone.txt -r training/requirements.txt",
    *(f"pip install -r requirements-{name}.txt" for name in ("faces", "voices", "batch", "gguf")),
    *(f"pip install {name}" for name in ("onnxruntime", "insightface", "insightface onnxruntime")),
    *(f"pip install {name}" for name in ("mediapipe", "pillow-heif", "pre-commit")),
    "pip install comfy-kitchen",
)
"""The stand-in of pip runs these. It checks that the files exist."""

STAND_INS = {
    "git": """import shutil, sys
from pathlib import Path
word, _, target = sys.argv[1:]
assert word == "clone"
if {linked}:
    Path(target).symlink_to("{root}")
else:
    shutil.copytree("{root}", target, ignore=shutil.ignore_patterns(".git", "tests", "docs"))
""",
    "pip": """import sys
from pathlib import Path
word, *rest = sys.argv[1:]
assert word == "install" and rest
for option, file in zip(rest, rest[1:]):
    assert option != "-r" or Path(file).is_file(), file
""",
    "python": "import os, sys\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n",
}


def pages() -> list[Path]:
    folders = (ROOT, ROOT / "docs", ROOT / "web" / "docs")
    return [page for folder in folders for page in sorted(folder.glob("*.md"))]


def commands(text: str) -> set[str]:
    """The commands in a Markdown text without comments: lines of code blocks, and inline code.

    A block that changes the folder is one command.
    """
    fenced = re.compile(r"^```(\w*)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
    blocks = [re.sub(r" +#.*", "", block) for kind, block in fenced.findall(text) if not kind]
    lines = [[block] if block.startswith("cd ") else block.splitlines() for block in blocks]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", fenced.sub("", text))]
    found = {*chain(*lines), *inline}
    return {code for code in found if re.match(r"(cd|git|pip|python) ", code)}


def notes() -> list[str]:
    found = []
    for file in (ROOT / "workflows").glob("*.json"):
        nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
        found += [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
    return found


def test_every_command_is_tried_here():
    text = "\n\n".join([*(page.read_text(encoding="utf-8") for page in pages()), *notes()])
    assert commands(text) == {*RUN, *PARSED, *HELP, *PIP}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes for the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_errors_of_the_readme_are_those_of_the_code():
    """README writes … for the parts that vary."""
    texts = []
    for file in chain((ROOT / "hallo3_core").rglob("*.py"), (ROOT / "nodes").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    quoted = re.findall("“(.*?)”", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(quoted) == 10
    for part in chain(*(quote.split("…") for quote in quoted)):
        assert any(part.strip() in text for text in texts), part


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Runs commands in a folder with ComfyUI. Cloning links or copies the pack."""
    for folder in ("custom_nodes", "input", "models"):
        (tmp_path / "ComfyUI" / folder).mkdir(parents=True)
    (tmp_path / "bin").mkdir()

    def run(*lines: str, linked: bool = True, **environment: str) -> list[str]:
        for name, code in STAND_INS.items():
            file = tmp_path / "bin" / name
            file.write_text(f"#!{sys.executable}\n" + code.format(root=ROOT, linked=linked))
            file.chmod(0o755)
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        script = "\n".join(lines).replace("<this repository>", "repository")
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "PWD": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a local huggingface.co: the released names, small random weights."""
    hub, weights = Hub(), BytesIO()
    torch.save({"module": published(CONFIG)}, weights)
    names = {Path(name).name: name for name in hub.files}
    hub.files[names["mp_rank_00_model_states.pt"]] = weights.getvalue()
    hub.files[names["3d-vae.pt"]] = (FIXTURES / "vae_weights.safetensors").read_bytes()
    server = hub.serve()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


COPY_EXAMPLES = "python -m hallo3_core examples"
EXAMPLES = [
    f"hallo3_{name}" for name in ("portrait.png", "group.png", "pair.png", "speech.wav", "song.wav")
]


def test_from_the_clone_to_converted_files(shell, hub, tmp_path):
    """The pack is a link here. No wav2vec2 is converted: one of its size takes 380 MB."""
    install, download, convert, check = RUN[:4]
    models = tmp_path / "ComfyUI" / "models"
    left_out = f"rm -r {models / 'audio_encoders'}"
    lines = (install, COPY_EXAMPLES, download, left_out, convert, check)
    said = shell(*lines, HF_ENDPOINT=hub, HF_HUB_DISABLE_XET="1")
    assert said[:5] == [str(tmp_path / "ComfyUI" / "input" / name) for name in EXAMPLES]
    assert said[5:9] == [
        str(models / "diffusion_models/hallo3/1/mp_rank_00_model_states.pt"),
        str(models / "vae/hallo3/3d-vae.pt"),
        str(models / "audio_encoders/wav2vec2-base-960h/model.safetensors"),
        str(models / "audio_encoders/wav2vec2-base-960h/config.json"),
    ]
    made = [line.split(" (")[0] for line in said[9:13]]
    assert made == [
        str(models / "diffusion_models/hallo3_dit_fp8_e4m3fn.safetensors"),
        str(models / "diffusion_models/hallo3_reference_fp8_e4m3fn.safetensors"),
        str(models / "diffusion_models/hallo3_audio_bf16.safetensors"),
        str(models / "vae/hallo3_vae_bf16.safetensors"),
    ]
    checked = said[13:]
    assert [line.split(": ")[0] for line in checked[::2]] == sorted(made)
    assert all("it can be loaded" in line for line in checked[1::2])


def test_a_copied_pack_finds_comfyui(shell, tmp_path):
    assert shell(INSTALL, COPY_EXAMPLES, linked=False) == [
        str(tmp_path / "ComfyUI" / "input" / name) for name in EXAMPLES
    ]


def test_a_pack_elsewhere_asks_for_the_folder():
    with pytest.raises(
        InputError, match="is not in the custom_nodes of a ComfyUI: give the folder"
    ):
        comfyui_folder("models")


def test_a_folder_that_is_named_is_taken(monkeypatch, capsys, tmp_path):
    """If its name is not `models`, it gets the published layout."""
    for name, place in (("models", "diffusion_models/hallo3/1"), ("weights", "hallo3/1")):
        words = ["hallo3_core", "download", str(tmp_path / name), "--list"]
        monkeypatch.setattr(sys, "argv", words)
        assert main() == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first.startswith(str(tmp_path / name / place / "mp_rank_00_model_states.pt: 29.10"))


@pytest.mark.parametrize("line", PARSED)
def test_what_takes_long_is_parsed(line, monkeypatch):
    program, *words = shlex.split(line)[1:]
    if program == "-m":
        module, *words = words
        assert STARTS[module](monkeypatch, words)
        return
    assert program == "run.py"
    started = []
    monkeypatch.setattr(run_script, "environment", lambda name: name)
    monkeypatch.setattr(run_script, "demo", started.append)
    monkeypatch.setattr(run_script, "test", started.append)
    monkeypatch.setattr(sys, "argv", [program, *words])
    run_script.main()
    assert started == [words[1:]]
    if words[0] == "demo":
        assert callable(parse(["animate", *words[1:]]).run)


def start_training(monkeypatch, words: list[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["training", *words])
    return training_commands.parse().command


def start_world(monkeypatch, words: list[str]) -> list:
    started = []
    for name in ("sheet", "film"):
        monkeypatch.setattr(world, name, lambda *given: started.append(given))
    monkeypatch.setattr(sys, "argv", ["training.world", *words])
    world.main()
    return started


STARTS = {
    "hallo3_core": lambda _, words: callable(parse(words).run),
    "training": start_training,
    "training.world": start_world,
}


@pytest.mark.parametrize("line", HELP)
def test_programs_for_developers_are_there(line, monkeypatch, capsys):
    first, *others = shlex.split(line)[1:]
    module, words = (others[0], others[1:]) if first == "-m" else (None, others)
    monkeypatch.setattr(sys, "argv", [first, *words, "--help"])
    monkeypatch.chdir(ROOT)
    monkeypatch.delitem(sys.modules, str(module), raising=False)
    with pytest.raises(SystemExit) as left:
        if module:
            runpy.run_module(module, run_name="__main__")
        else:
            runpy.run_path(first, run_name="__main__")
    assert not left.value.code
    said = capsys.readouterr().out
    assert said.startswith("usage: ")
    assert all(word in said for word in words if word.startswith("--"))


@pytest.mark.parametrize("lines", PIP)
def test_requirements_are_there(shell, lines):
    shell(f"cd {shlex.quote(str(ROOT))}", lines)
