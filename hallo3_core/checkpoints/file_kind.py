"""What a file is by its first bytes, where the user may have chosen any."""

from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

START = 512
"""Bytes that are looked at."""


class Kind(NamedTuple):
    """What a file is, and what to do about it."""

    what: str
    mend: str = "choose another file"


WEB_PAGE = Kind("a web page", "download the file itself again")
LFS_POINTER = Kind("a Git LFS pointer", "fetch it with `git lfs pull`")
MACOS = Kind("what macOS keeps beside a file", "choose the one without ._ before its name")
GGUF = Kind("a GGUF file", "choose a .safetensors, .pt or .bin file")
PICTURE, SOUND = Kind("a picture"), Kind("a sound or a video")
ARCHIVE = Kind("a packed archive", "unpack it and choose the file that was in it")
DOCUMENT, TEXT = Kind("a document"), Kind("text")
ONNX = Kind("an ONNX network")
SAFETENSORS, ZIP = Kind("a .safetensors file"), Kind("a ZIP or PyTorch file")

STARTS = {
    b"version https://git-lfs": LFS_POINTER,
    b"\x00\x05\x16\x07": MACOS,
    b"GGUF": GGUF,
    b"\x89PNG": PICTURE,
    b"\xff\xd8\xff": PICTURE,
    b"GIF8": PICTURE,
    b"II*\x00": PICTURE,
    b"MM\x00*": PICTURE,
    b"RIFF": SOUND,
    b"OggS": SOUND,
    b"fLaC": SOUND,
    b"ID3": SOUND,
    b"\x1aE\xdf\xa3": SOUND,
    b"PK": ZIP,
    b"7z\xbc\xaf": ARCHIVE,
    b"Rar!": ARCHIVE,
    b"\x1f\x8b": ARCHIVE,
    b"BZh": ARCHIVE,
    b"\xfd7zXZ": ARCHIVE,
    b"\x28\xb5\x2f\xfd": ARCHIVE,
    b"%PDF": DOCUMENT,
}
PLACES = {
    (8, b"{"): SAFETENSORS,
    (8, b"WEBP"): PICTURE,
    (4, b"ftypheic"): PICTURE,
    (4, b"ftyp"): SOUND,
}
"""What says it further on, and where; these come first."""


def kind_of(start: bytes) -> Kind | None:
    """What a file that begins like this is; None if it may be anything."""
    for (place, mark), kind in PLACES.items():
        if start[place:].startswith(mark):
            return kind
    for mark, kind in STARTS.items():
        if start.startswith(mark):
            return kind
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return WEB_PAGE
    if start[:1] == b"\x08" and start[2:3] == b"\x12":
        return ONNX
    readable = start.decode("utf-8", errors="ignore").replace("\n", " ").replace("\t", " ")
    if len(readable.encode()) > len(start) - 4 and readable.replace("\r", " ").isprintable():
        return TEXT
    return None


def read_kind(path: Path, wanted: str, *good: Kind) -> Kind | None:
    """The kind of a file that ought to be `wanted`, which files of some `good` kinds are.

    Raises `InputError` if there is no such file, or if it is plainly something else.
    """
    if path.is_dir():
        diffusers = " of diffusers" if (path / "model_index.json").is_file() else ""
        raise InputError(f"{path} is a folder{diffusers}, not {wanted}: choose a file.")
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}: check the path.") from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): check the disk and who may read it."
        ) from error
    if not start:
        raise InputError(f"{path} is empty: download it again.")
    kind = kind_of(start)
    if kind is not None and kind not in good:
        raise InputError(f"{path} is {kind.what}, not {wanted}: {kind.mend}.")
    return kind
