"""The table of states: what became of each job. It is a CSV file, written as the batch goes."""

import csv
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from io import StringIO
from pathlib import Path

from ...errors import InputError
from ...media.export import first_file
from ...media.outputs import write_file
from .jobs import Job
from .workers import Result

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass
class Line:
    """A line of the table. `seconds` is how long the last try took, and `worker` who made it."""

    row: str
    output: str
    state: str = WAITING
    tries: str = "0"
    worker: str = ""
    seconds: str = ""
    error: str = ""
    warnings: str = ""
    fingerprint: str = ""


class States:
    """The states of jobs, in memory and in `file`. Those of an earlier batch are read from it.

    A job is done if the file says so, its fingerprint is the same and its video is there. Raises
    `InputError` if the file is not such a table.
    """

    def __init__(self, file: Path, jobs: list[Job]):
        self.file, self.before = file, read_lines(file)
        self.lines: dict[Path, Line] = {}
        for job in jobs:
            self.add(job)

    def add(self, job: Job) -> None:
        """Add a line for a job."""
        earlier = self.before.get(str(job.output))
        line = Line(str(job.row), str(job.output), fingerprint=job.fingerprint)
        same = earlier and (earlier.state, earlier.fingerprint) == (DONE, job.fingerprint)
        if earlier and same and first_file(job.output).exists():
            line = replace(earlier, row=line.row)
        self.lines[job.output] = line

    def remove(self, job: Job) -> None:
        del self.lines[job.output]

    def of(self, job: Job) -> Line:
        return self.lines[job.output]

    def made_before(self, job: Job) -> bool:
        """Whether the file at the output of a job comes from an earlier batch."""
        earlier = self.before.get(str(job.output))
        return earlier is not None and earlier.state in (DONE, RUNNING)

    def count(self, jobs: list[Job], state: str) -> int:
        """How many of the jobs are in a state."""
        return sum(self.of(job).state == state for job in jobs)

    def started(self, job: Job, worker: str) -> None:
        line = self.of(job)
        line.state, line.worker, line.tries = RUNNING, worker, f"{int(line.tries) + 1}"
        self.write_if_possible()

    def ended(self, job: Job, state: str, result: Result) -> None:
        line = self.of(job)
        line.state, line.seconds = state, f"{result.seconds:.2f}"
        line.error, line.warnings = result.error, result.warnings
        self.write_if_possible()

    def stopped(self) -> None:
        """What was running waits for the next start."""
        for line in self.lines.values():
            if line.state == RUNNING:
                line.state = WAITING
        self.write_if_possible()

    def write_if_possible(self) -> None:
        """Write the file. On Windows that fails while a spreadsheet shows it."""
        with suppress(InputError):
            self.write()

    def write(self) -> None:
        """Write the file, completely or not at all. Raises `InputError` if that fails."""
        text = StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Line)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, self.lines.values()))
        write_file(self.file, text.getvalue().encode(), overwrite=True)


def read_lines(file: Path) -> dict[str, Line]:
    """The lines of a table of states, by output. There are none if there is no file."""
    if not file.exists():
        return {}
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            lines = [Line(**row) for row in csv.DictReader(opened)]
    except (OSError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is not a table of states of this command: move it to another folder."
        ) from error
    return {line.output: line for line in lines}
