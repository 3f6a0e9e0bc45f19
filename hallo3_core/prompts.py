"""Prompts that change as the clip goes on."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .errors import InputError
from .network.config import FPS, NEW_FRAMES

Prompt = TypeVar("Prompt")

LINE = re.compile(r"(\d+(?:\.\d+)?)\s*s?\s*[:,;]?\s+(\S.*)")
EXAMPLE = "4.5 she smiles"


def held(prompts: Sequence[tuple[float, Prompt]], index: int) -> Prompt | None:
    """The prompt that holds in segment `index`: the last that begins before the segment's middle.

    `prompts` are pairs of a second and a prompt, in order. None if none holds yet.
    """
    middle = (index + 0.5) * NEW_FRAMES / FPS
    begun = [prompt for start, prompt in prompts if start < middle]
    return begun[-1] if begun else None


def is_file(prompt: str) -> bool:
    """Whether a prompt is the name of a file with prompts, not the words themselves."""
    with suppress(OSError):  # a long prompt cannot be the name of a file
        return Path(prompt).is_file()
    return False


def read_prompts(text: str) -> list[tuple[float, str]]:
    """Seconds and prompts, in order, from lines such as "4.5 she smiles".

    Raises `InputError` if a line does not begin with a number of seconds, or if there is no line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(
                f"Line {number} of the prompts is {line.strip()[:40]!r}: begin it with the second "
                f"from which it holds, such as {EXAMPLE!r}."
            )
        found.append((float(match[1]), match[2]))
    if not found:
        raise InputError(f"There is no prompt: write lines such as {EXAMPLE!r}.")
    return sorted(found, key=lambda pair: pair[0])
