"""Writing of output files. Files of the user are replaced only with `overwrite`.

A file is written under a temporary name, and gets its final name when it is complete.
"""

import errno
import os
import secrets
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import gettempdir

from av.error import FFmpegError
from filelock import FileLock, Timeout  # comes with torch

from ..errors import InputError


def check_file(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Raise `InputError` if the file `path` cannot be written, or may not be; see `check_name`."""
    if path.is_dir():
        raise InputError(f"The output {path} is a folder: name a file.")
    if not path.parent.is_dir():
        raise InputError(
            f"There is no folder {path.parent} for the output: create it, or choose another."
        )
    check_name(path, inputs, overwrite)
    with claimed(path), temporary(path):
        pass


def check_name(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Raise `InputError` if `path` is one of the `inputs`, or exists and `overwrite` is False.

    Links and other names of the same file are recognised.
    """
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise InputError(f"The output {path} is the input {given}: choose another name.")
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path} exists already: give --overwrite, or choose another name.")


def cannot_write(path: Path, error: OSError | FFmpegError) -> InputError:
    """The error for the user if the system cannot write `path`."""
    if error.errno == errno.ENOSPC:
        return InputError(f"There is no room left for {path}: make room and start again.")
    return InputError(
        f"Nothing can be written to {path.parent} ({error.strerror}): check this folder, or choose "
        "another."
    )


def numbered(path: Path) -> Iterator[Path]:
    """Yield `a.mp4`, `a_2.mp4`, `a_3.mp4`, ..."""
    yield path
    yield from (path.with_stem(f"{path.stem}_{number}") for number in count(2))


def free_name(path: Path) -> Path:
    """The first of `a.mp4`, `a_2.mp4`, ... that does not exist and that no job is writing."""
    return next(name for name in numbered(path) if not (os.path.lexists(name) or is_claimed(name)))


def new_file(path: Path) -> Path:
    """Create an empty file with the first free name of `a.mp4`, `a_2.mp4`, ...

    Raises `InputError` if it cannot be created.
    """
    return next(filter(_created, numbered(path)))


def _created(path: Path) -> bool:
    """Create an empty file. False if the name is taken."""
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    except OSError as error:
        raise cannot_write(path, error) from error
    return True


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Create a new file beside `path`, to be moved to `path` when it is complete.

    If it is still there at the end, it is deleted. A killed program leaves a file such as
    `a.mp4.partial-1f3c5a7e`. Raises `InputError` if the file cannot be created.
    """
    file = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
    try:
        file.open("xb").close()
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def place(file: Path, path: Path, overwrite: bool = False) -> None:
    """Move a complete file to `path` in one step.

    Raises `FileExistsError` if `path` exists and `overwrite` is False.
    """
    if not overwrite:
        path.open("xb").close()
    file.replace(path)


def write_file(path: Path, content: bytes, overwrite: bool = False) -> None:
    """Write a small file, completely or not at all. Raises `InputError` if that fails."""
    with temporary(path) as file:
        try:
            file.write_bytes(content)
            place(file, path, overwrite)
        except OSError as error:
            raise cannot_write(path, error) from error


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Claim `path`, so that no other job writes it inside this context.

    Raises `InputError` if another job has claimed it. The claim of a killed job ends by itself.
    """
    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"Another job is writing {path}: choose another name, or wait until it ends."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not delete it before it is released
            Path(lock.lock_file).unlink()
        lock.release()


def is_claimed(path: Path) -> bool:
    """Whether a job is writing `path` now."""
    try:
        with claimed(path):
            return False
    except InputError:
        return True


def _lock(path: Path) -> FileLock:
    """The lock of `path`, a file in the temporary folder.

    It is not beside `path`, because a killed job leaves it there and some network drives have no
    locks.
    """
    name = sha256(os.fsencode(str(path.resolve()).casefold())).hexdigest()[:16]
    user = getattr(os, "getuid", int)()
    return FileLock(Path(gettempdir(), f"hallo3-{user}-{name}.lock"))


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Create `folder` and its missing parents. After an error, empty new folders are removed.

    Raises `InputError` if it cannot be created.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder / "x", error) from error
    try:
        yield
    except BaseException:
        with suppress(OSError):  # a folder that is not empty stays
            for place in missing:
                place.rmdir()
        raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore SIGINT (Ctrl-C) and SIGTERM inside this context, so that a file can be finished.

    Only the main thread gets these signals. In other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
