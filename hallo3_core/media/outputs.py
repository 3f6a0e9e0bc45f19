"""Names of files that go out: nothing of the user's is replaced or deleted unasked.

A file grows under a name that nobody has, and gets its own name when it is whole.
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

from filelock import FileLock, Timeout  # comes with torch

from ..errors import InputError


def check_file(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Raise `InputError` if the file `path` cannot or must not be written; see `check_name`."""
    if path.is_dir():
        raise InputError(f"The output {path} is a folder: name a file.")
    if not path.parent.is_dir():
        raise InputError(
            f"There is no folder {path.parent} for the output: make it, or choose another."
        )
    check_name(path, inputs, overwrite)
    with claimed(path), temporary(path):
        pass


def check_name(path: Path, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Raise `InputError` if `path` is one of the `inputs`, by whatever name or link, or is there
    and may not be overwritten.
    """
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise InputError(f"The output {path} is the input {given}: choose another name.")
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path} exists already: give --overwrite, or choose another name.")


def cannot_write(path: Path, error: Exception) -> InputError:
    """What to tell the user when the system refuses to write `path`."""
    if error.errno == errno.ENOSPC:
        return InputError(f"There is no room left for {path}: make room and start again.")
    return InputError(
        f"Nothing can be written to {path.parent} ({error.strerror}): choose a folder that is "
        "yours."
    )


def numbered(path: Path) -> Iterator[Path]:
    """`a.mp4`, `a_2.mp4`, `a_3.mp4`, ..."""
    yield path
    yield from (path.with_stem(f"{path.stem}_{number}") for number in count(2))


def free_name(path: Path) -> Path:
    """The first of the names `a.mp4`, `a_2.mp4`, ... that nobody has or is writing."""
    return next(name for name in numbered(path) if not (os.path.lexists(name) or is_claimed(name)))


def new_file(path: Path) -> Path:
    """An empty file that was not there before: the first of `a.mp4`, `a_2.mp4`, ... to be had."""
    for name in numbered(path):
        try:
            name.open("xb").close()
        except FileExistsError:
            continue
        except OSError as error:
            raise cannot_write(path, error) from error
        return name


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A new file beside `path`, to be moved there when it is whole; else it is deleted.

    What a killed program leaves is a file `a.mp4.partial-1f3c5a7e`.
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
    """Move a whole file to `path` at once.

    Raises `FileExistsError` if somebody has the name, unless it may be overwritten.
    """
    if not overwrite:
        path.open("xb").close()
    file.replace(path)


def write_file(path: Path, content: bytes, overwrite: bool = False) -> None:
    """A small file, whole or not at all."""
    with temporary(path) as file:
        try:
            file.write_bytes(content)
            place(file, path, overwrite)
        except OSError as error:
            raise cannot_write(path, error) from error


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """No other job writes `path` in here.

    Raises `InputError` if another does. The system ends the claim of a job that was killed.
    """
    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"Another job is writing {path}: choose another name, or wait for it."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps it until it is released
            Path(lock.lock_file).unlink()
        lock.release()


def is_claimed(path: Path) -> bool:
    """Whether another job is writing `path` just now."""
    try:
        with claimed(path):
            return False
    except InputError:
        return True


def _lock(path: Path) -> FileLock:
    """Not beside `path`: a killed job leaves the file, and not every network drive has locks."""
    name = sha256(str(path.resolve()).casefold().encode()).hexdigest()[:16]
    user = getattr(os, "getuid", int)()
    return FileLock(Path(gettempdir(), f"hallo3-{user}-{name}.lock"))


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """`folder` is there in here; if the context is left by an error, no new and empty one stays."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder / "x", error) from error
    try:
        yield
    except BaseException:
        with suppress(OSError):  # where something else is in it
            for place in missing:
                place.rmdir()
        raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and a request to end do nothing in here, so that a file can be finished.

    Only the main thread gets them; in others this does nothing.
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
