"""The Python example of the documentation runs."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_python_of_the_docs():
    """All but sampling, which is what other tests do: the segments are not asked for."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    before, loop = code.split("for segment in ")
    names: dict = {}
    exec(before, names)
    assert names["speech"].frames == 25
    segments = eval(loop.split(":\n")[0], names)
    assert iter(segments) is segments
