"""Recognise any file that the user may have chosen by its first bytes."""

from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

START = 512
"""Bytes that are read of a file."""


class Kind(NamedTuple):
    """What a file is, and what the user should do (`mend`) if it is the wrong one."""

    what: str
    mend: str = "choose another file"


WEB_PAGE = Kind("a web page", "download the file itself again")
LFS_POINTER = Kind("a Git LFS pointer", "fetch it with `git lfs pull`")
MACOS = Kind("a metadata file of macOS", "choose the file without ._ at the start of its name")
GGUF = Kind("a GGUF file", "choose a .safetensors, .pt or .bin file")
PICTURE, SOUND = Kind("a picture"), Kind("a sound or a video")
ARCHIVE = Kind("a compressed archive", "unpack it and choose the file in it")
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
"""Marks that are not at the start, with their offset in bytes. They are checked first."""


def kind_of(start: bytes) -> Kind | None:
    """The kind of a file that begins with the bytes `start`; None if it is not recognised."""
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
    """The kind of the file at `path`; None if it is not recognised.

    `good` are the kinds that the file may have. `wanted` says in errors what the file should be.
    Raises `InputError` if `path` is missing, a folder, unreadable or empty, or if the file is of
    another known kind.
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
            f"{path} cannot be read ({error.strerror}): check the disk and the file permissions."
        ) from error
    if not start:
        raise InputError(f"{path} is empty: download it again.")
    kind = kind_of(start)
    if kind is not None and kind not in good:
        raise InputError(f"{path} is {kind.what}, not {wanted}: {kind.mend}.")
    return kind
