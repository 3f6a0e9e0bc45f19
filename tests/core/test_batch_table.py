"""Tables of jobs: what each cell means, and the errors for what is wrong."""

from pathlib import Path

import pytest

from batch_tables import GOOD, THREE, lay_out, table
from hallo3_core import cli as command_line
from hallo3_core.cli.batch.jobs import read_jobs
from hallo3_core.errors import InputError
from hallo3_core.sound.sound_file import seconds_in_header
from sound_files import RATE, voice, write_wav


@pytest.fixture
def folder(tmp_path) -> Path:
    lay_out(tmp_path)
    return tmp_path


def test_how_long_a_file_is(folder):
    assert seconds_in_header(folder / "long.wav") == pytest.approx(0.4, abs=0.001)
    assert seconds_in_header(folder / "broken.png") == 0


@pytest.mark.parametrize(
    ("header", "rows", "says"),
    [
        ("portrait,speech", [], "jobs.csv has no column output: add it."),
        ("portrait,output", [], "jobs.csv has no column speech or speaker: add it."),
        ("portrait,speech,output,sed", [], "has a column 'sed', .* the nearest is seed."),
        ("portrait,speech,output,quiet", [], "has a column 'quiet', which is no option"),
        ("portrait,speech,output,seed,Seed", [], "has two columns seed: keep one."),
        (None, [], "jobs.csv has no jobs: write a row"),
        (None, ["", ",,,,"], "jobs.csv has no jobs: write a row"),
        (None, [GOOD, "me.png,none.wav,b.mp4,1,0"], "Row 3: there is no none.wav"),
        (None, [GOOD, "", "me.png,,b.mp4,1,0"], "Row 4: it has no speech or speaker"),
        (None, [GOOD, "me.png,long.wav,./a.mp4,1,0"], "Row 3: .*a.mp4 is also the output of row 2"),
        (None, ["me.png,short.wav,a.mp4,many,0"], "Row 2: steps: invalid int value: 'many'."),
        (None, ["me.png,short.wav,a.mp4,0,0"], "Row 2: The number of steps is 0"),
        (None, ["me.png,short.wav,a.avi,1,0"], "Row 2: The output .*a.avi does not end in .mp4"),
        (None, [f"{GOOD},7"], "Row 2: it has 6 cells, but there are 5 columns."),
        ("portrait,speech,output,no-store", [f"{THREE},maybe"], "no-store is 'maybe': write"),
        ("portrait,speech,output,fit", [f"{THREE},x"], "Row 2: fit: invalid choice: 'x'"),
    ],
)
def test_wrong_tables(folder, header, rows, says):
    file = table(folder, *rows, **({"header": header} if header else {}))
    options = command_line.parse(["batch", str(file), "--output", str(folder / "out")])
    with pytest.raises(InputError, match=says):
        options.run(options)
    assert not (folder / "out").exists()


def test_what_is_no_table(folder):
    for name, says in (("none.csv", "There is no table"), ("long.wav", "cannot be read as a")):
        with pytest.raises(InputError, match=says):
            read_jobs(folder / name, folder / "out")


def test_every_option_has_a_column(folder):
    """As Excel writes it in Europe: with a mark at the beginning, and semicolons."""
    header = "\ufeffPortrait;speaker;output;guidance_interval;no-store;isolate vocals;from;seed"
    row = "me.png;me.png long.wav 'me.png' \"short.wav\";a.mp4;0 0.5;yes;TRUE;0.1;-5"
    (job,) = read_jobs(table(folder, row, header=header), folder / "out")
    options = job.options
    assert options.speaker == [
        [Path("me.png"), Path("long.wav")],
        [Path("me.png"), Path("short.wav")],
    ]
    assert options.interval == [0, 0.5]
    assert (options.store, options.isolate_vocals, options.start) == (False, Path(), 0.1)
    assert options.seed == -5
    assert job.output == folder / "out" / "a.mp4"
    assert job.seconds == pytest.approx(0.6, abs=0.001)


def test_a_changed_file_or_option_changes_the_fingerprint(folder):
    def found(row=GOOD) -> str:
        return read_jobs(table(folder, row), folder)[0].fingerprint

    before = found()
    assert found() == before == found(GOOD.replace("a.mp4", "b.mp4"))
    assert found(GOOD[:-1] + "7") != before
    write_wav(folder / "short.wav", voice(0.2, RATE, seed=1), RATE)
    assert found() != before


def test_the_picture_of_the_faces_is_no_input(folder):
    """Once it is written, the job is still the same."""

    def found() -> str:
        jobs = table(folder, f"{THREE},faces.png", header="portrait,speech,output,framing")
        return read_jobs(jobs, folder)[0].fingerprint

    before = found()
    (folder / "faces.png").write_bytes((folder / "me.png").read_bytes())
    assert found() == before
