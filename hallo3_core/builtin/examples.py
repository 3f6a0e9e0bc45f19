"""The example pictures and sounds as files."""

from collections.abc import Callable, Iterator
from pathlib import Path

from .. import builtin
from ..media.outputs import write_file
from ..media.picture import save_picture
from ..media.video import save_sound

EXAMPLES: dict[str, Callable[..., None]] = {
    "hallo3_portrait.png": lambda **to: save_picture(builtin.portrait(), **to),
    "hallo3_group.png": lambda **to: save_picture(builtin.group(), **to),
    "hallo3_pair.png": lambda **to: save_picture(builtin.pair(), **to),
    "hallo3_speech.wav": lambda **to: write_file(content=builtin.SPEECH.read_bytes(), **to),
    "hallo3_song.wav": lambda **to: save_sound(*builtin.song(), **to),
}
"""How each file is written, with `path` and `overwrite`. The shipped workflows use these names."""


def write_examples(folder: Path, overwrite: bool = False) -> Iterator[tuple[Path, bool]]:
    """Write the examples. Yields each path, and whether it was written: existing files are kept.

    Raises `InputError` if the folder cannot be written to.
    """
    for name, write in EXAMPLES.items():
        path = folder / name
        wanted = overwrite or not path.exists()
        if wanted:
            write(path=path, overwrite=overwrite)
        yield path, wanted
