"""The jobs of a batch: a table with a row for each video and a column for each option of `animate`.

Paths in the table begin at its folder. Paths of the videos begin at the folder of the outputs.
"""

import argparse
import csv
import hashlib
import shlex
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from ...errors import InputError
from ...sound.sound_file import seconds_in_header
from ...store.clip_store import FORMAT
from ...store.fingerprint import fingerprint
from .. import animate

NEEDED = (("portrait", "video"), ("speech", "speaker"), ("output",))
"""Every row gives one of each."""
NOT_COLUMNS = ("help", "overwrite", "quiet", "split-guidance")
"""Options of `animate` that are the same for all rows."""
DECIDE_NOTHING = ("output", "framing", "overwrite", "quiet", "store", "split_guidance")
"""Options that do not change the video."""
YES, NO = ("yes", "true", "1"), ("no", "false", "0")


@dataclass(eq=False)
class Job:
    """A video to make. `options` are those of `animate`, and `row` is 2 for the first job.

    `seconds` is how long the speech is, and `fingerprint` that of all options and of their files.
    `folder` is the one where relative paths begin.
    """

    row: int
    options: argparse.Namespace
    folder: Path
    seconds: float
    fingerprint: str

    @property
    def output(self) -> Path:
        return self.options.output


class RowParser(argparse.ArgumentParser):
    """The options of `animate`. A mistake is an `InputError`."""

    def __init__(self):
        super().__init__()
        animate.add(self)

    def error(self, message: str):
        raise InputError(f"{message.removeprefix('argument --')}.")

    def columns(self) -> dict[str, argparse.Action]:
        """What each column can be called, and its option."""
        named = {name.removeprefix("--"): do for name, do in self._option_string_actions.items()}
        return {name: do for name, do in named.items() if name not in (*NOT_COLUMNS, "-h")}


@contextmanager
def in_row(number: int) -> Iterator[None]:
    """Errors inside this context name the row."""
    try:
        yield
    except InputError as error:
        raise InputError(f"Row {number}: {error}") from error


def read_jobs(table: Path, outputs: Path, longest: float | None = None) -> list[Job]:
    """The jobs of a table. Their videos go into the folder `outputs`.

    Speech of more than `longest` seconds is cut. Raises `InputError` if the table cannot be read,
    or if a row is wrong or names a missing file.
    """
    parser, folder = RowParser(), table.absolute().parent
    header, *rows = read_rows(table)
    columns = named_columns(header, parser, table)
    jobs: dict[str, Job] = {}
    for number, cells in enumerate(rows, 2):
        if not any(cells):
            continue
        with in_row(number), chdir(folder):
            job = read_job(parser, columns, cells, number, outputs)
            if longest is not None and job.seconds > longest:
                job.fingerprint = fingerprint((job.fingerprint, longest))
            same = jobs.setdefault(str(job.output.resolve()).casefold(), job)
            if same is not job:
                raise InputError(f"{job.output} is also the output of row {same.row}.")
    if not jobs:
        raise InputError(f"{table} has no jobs: write a row for each video below the first line.")
    return list(jobs.values())


def read_rows(table: Path) -> list[list[str]]:
    """The cells of a table, without blanks around them. They may be separated by semicolons."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"There is no table {table}: check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{table} cannot be read as a table ({error}): save it as CSV in UTF-8."
        ) from error
    first = text.partition("\n")[0]
    lines = csv.reader(text.splitlines(keepends=True), delimiter=max(",;\t", key=first.count))
    rows = [[cell.strip() for cell in cells] for cells in lines]
    return rows or [[]]


def named_columns(header: list[str], parser: RowParser, table: Path) -> list[str]:
    """The options that the columns are for. Raises `InputError` if one is unknown or missing."""
    columns = [name.lower().replace("_", "-").replace(" ", "-") for name in header]
    known = parser.columns()
    for name, column in zip(header, columns, strict=True):
        if column not in known:
            (near,) = get_close_matches(column, known, n=1, cutoff=0)
            raise InputError(
                f"{table} has a column '{name}', which is no option of animate: the nearest is "
                f"{near}."
            )
        if columns.count(column) > 1:
            raise InputError(f"{table} has two columns {column}: keep one.")
    for names in NEEDED:
        if not set(names) & set(columns):
            raise InputError(f"{table} has no column {' or '.join(names)}: add it.")
    return columns


def read_job(
    parser: RowParser, columns: list[str], cells: list[str], number: int, outputs: Path
) -> Job:
    """The job of one row, inside the folder of the table."""
    if len(cells) > len(columns):
        raise InputError(f"it has {len(cells)} cells, but there are {len(columns)} columns.")
    given = {name: cell for name, cell in zip(columns, cells, strict=False) if cell}
    for names in NEEDED:
        if not set(names) & set(given):
            raise InputError(f"it has no {' or '.join(names)}: fill in the cell.")
    known = parser.columns()
    words = [word for name, cell in given.items() for word in words_of(name, known[name], cell)]
    options = parser.parse_args(words)
    options.output, options.quiet = outputs / options.output, True
    for path in animate.given_files(options):
        if not path.exists():
            raise InputError(f"there is no {path}: check the path.")
    sounds = [file for _, file in options.speaker] or [options.speech]
    seconds = sum(map(seconds_in_header, sounds))
    return Job(number, options, Path.cwd(), seconds, fingerprint_of(options))


def words_of(name: str, option: argparse.Action, cell: str) -> list[str]:
    """What one would type for a cell that is not empty."""
    typed = f"--{name}"
    if option.nargs in (0, "?") and cell.lower() in (*YES, *NO):
        return [typed] if cell.lower() in YES else []
    if option.nargs == 0:
        raise InputError(f"{name} is '{cell}': write yes or no.")
    if isinstance(option.nargs, int):
        given, size = parts(cell), option.nargs
        groups = (given[start : start + size] for start in range(0, len(given), size))
        return [word for group in groups for word in (typed, *group)]
    return [f"{typed}={cell}"]


def parts(cell: str) -> list[str]:
    """The words of a cell. Blanks are between them, and quotes around words with blanks."""
    lexer = shlex.shlex(cell, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        return list(lexer)
    except ValueError:
        raise InputError(f"{cell} has a quote that does not end: write another one.") from None


def fingerprint_of(options: argparse.Namespace) -> str:
    """The fingerprint of everything that decides a video: the options, and the files they name."""
    named = {name: value for name, value in vars(options).items() if name not in DECIDE_NOTHING}
    return fingerprint((FORMAT, contents(named)))


def contents(value: object) -> object:
    """A value, with the contents of the files in place of their names. A folder is its name."""
    match value:
        case dict():
            return {name: contents(each) for name, each in value.items()}
        case list() | tuple():
            return [contents(each) for each in value]
        case Path() | str():
            with suppress(OSError):  # a long prompt cannot be the name of a file
                if Path(value).is_file():
                    state = Path(value).stat()
                    return digest(Path(value).absolute(), state.st_size, state.st_mtime_ns)
            return str(value)
    return value


@lru_cache
def digest(file: Path, size: int, changed: int) -> str:
    """The hash of a file, which is read again if its size or its time of change is another."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
