"""The texts of the pack in another language.

`LANGUAGE.json`, next to this file, has a translation for each English text. A text that stands in
many places is translated once.
"""

import json
import re
from pathlib import Path

TRANSLATIONS = Path(__file__).parent
# A line break that does not begin an item of a list.
WRAPPED = re.compile(r"\n(?!- |\d+\. )\s*")


class Translation:
    """What each English text is in one language. It remembers which texts it was asked for.

    A text that is not translated stays English.
    """

    def __init__(self, path: Path):
        self.path = path
        self.language = path.stem
        self.known: dict[str, str] = json.loads(path.read_text("utf-8"))
        self.asked: dict[str, str] = {}

    def __call__(self, english: str) -> str:
        self.asked[english] = self.known.get(english, "")
        return self.asked[english] or english

    def tree(self, texts: dict) -> dict:
        """The same dictionary of dictionaries, with its texts translated."""
        return {
            key: self.tree(value) if isinstance(value, dict) else self(value)
            for key, value in texts.items()
        }

    def prose(self, markdown: str) -> str:
        """Paragraphs and lists: each paragraph and each item of a list is one text."""
        blocks = [WRAPPED.sub(" ", block).split("\n") for block in markdown.split("\n\n") if block]
        return "\n\n".join("\n".join(map(self, lines)) for lines in blocks)

    def missing(self) -> list[str]:
        """The texts whose translation is empty in the file."""
        return [english for english, text in self.known.items() if not text]


def languages() -> list[Translation]:
    return [Translation(path) for path in sorted(TRANSLATIONS.glob("*.json"))]


def as_json(texts: dict) -> str:
    return json.dumps(texts, indent=2, ensure_ascii=False) + "\n"
