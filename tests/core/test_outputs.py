"""No file of the user is replaced or deleted unasked, whatever its name is."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from hallo3_core import cli as command_line
from hallo3_core.cli import animate as animate_command
from hallo3_core.errors import InputError
from hallo3_core.media.outputs import (
    check_file,
    claimed,
    free_name,
    new_file,
    place,
    temporary,
    write_file,
)
from hallo3_core.media.picture import check_picture_file, save_picture
from hallo3_core.media.video import check_output

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def mine(tmp_path) -> Path:
    """A file of the user."""
    path = tmp_path / "mine.mp4"
    path.write_bytes(b"mine")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["itself", "dots", "symbolic link", "hard link", "link to it"])
def test_an_output_that_is_an_input(mine, kind):
    output, given = mine.with_name("other.mp4"), mine
    match kind:
        case "itself":
            output = mine
        case "dots":
            (mine.parent / "folder").mkdir()
            output = mine.parent / "folder" / ".." / mine.name
        case "symbolic link":
            output.symlink_to(mine)
        case "hard link":
            output.hardlink_to(mine)
        case "link to it":
            given = mine.with_name("given.mp4")
            given.symlink_to(mine)
            output = mine
    inputs = [mine.parent, mine.with_name("nowhere.png"), given]
    with pytest.raises(InputError, match=f"is the input {given}: choose another name"):
        check_output(output, inputs, overwrite=True)
    assert mine.read_bytes() == b"mine"


def test_what_is_there_is_replaced_only_on_request(mine, tmp_path):
    with pytest.raises(InputError, match=r"mine\.mp4 exists already: give --overwrite, or choose"):
        check_output(mine)
    check_output(mine, overwrite=True)
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(InputError, match="exists already"):
        check_output(tmp_path / "lost.mp4")
    check_output(tmp_path / "new.mp4")
    assert mine.read_bytes() == b"mine"
    assert names(tmp_path) == ["lost.mp4", "mine.mp4"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere/v.mp4", "There is no folder .*nowhere"),
        ("v.avi", "does not end in .mp4"),
        ("folder.mp4", "is a folder"),
        ("/proc/v.mp4", "Nothing can be written to /proc"),
    ],
)
def test_where_nothing_can_be_written(tmp_path, name, says):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match=says):
        check_output(tmp_path / name)
    assert names(tmp_path) == ["folder.mp4"]


def test_free_names(mine, tmp_path):
    """Names of files and of running jobs are not free."""
    assert free_name(tmp_path / "new.mp4") == tmp_path / "new.mp4"
    assert free_name(mine) == tmp_path / "mine_2.mp4"
    with claimed(tmp_path / "mine_2.mp4"):
        assert free_name(mine) == tmp_path / "mine_3.mp4"
    assert [new_file(mine).name for _ in range(2)] == ["mine_2.mp4", "mine_3.mp4"]
    assert mine.read_bytes() == b"mine"


def test_claims_leave_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with claimed(tmp_path / "video.mp4"):
        assert len(names(tmp_path)) == 1
        with pytest.raises(InputError), claimed(tmp_path / "video.mp4"):
            pass
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == []


def test_one_job_a_name(tmp_path):
    """Other processes and other letter cases count, too. The claim of a killed job ends."""
    code = """
import os, sys
from pathlib import Path
from hallo3_core.media.outputs import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", code, tmp_path / "Video.mp4"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout.readline() == "claimed\n"
        for name in ("Video.mp4", "video.mp4", "../" + tmp_path.name + "/Video.mp4"):
            with pytest.raises(InputError, match="Another job is writing"):
                check_file(tmp_path / name)
        check_file(tmp_path / "other.mp4")
        job.stdin.write("\n")
    check_file(tmp_path / "Video.mp4")
    assert names(tmp_path) == []


def test_a_file_appears_whole_or_not_at_all(mine, tmp_path):
    with pytest.raises(ZeroDivisionError), temporary(mine) as file:
        file.write_bytes(b"half")
        raise ZeroDivisionError
    with temporary(mine) as one, temporary(mine) as two:
        assert one != two
        two.write_bytes(b"whole")
        with pytest.raises(FileExistsError):
            place(two, mine)
        assert mine.read_bytes() == b"mine"
        place(two, mine, overwrite=True)
    assert mine.read_bytes() == b"whole"
    assert names(tmp_path) == ["mine.mp4"]


def test_new_files_have_the_rights_of_others(tmp_path):
    """Others may read them. Temporary files can be read only by their owner."""
    (tmp_path / "usual").touch()
    write_file(tmp_path / "made", b"made")
    rights = [(tmp_path / name).stat().st_mode for name in ("usual", "made")]
    assert rights[0] == rights[1]


def test_pictures(tmp_path):
    picture = torch.rand(3, 20, 30)
    for name in ("x.txt", "x", "x.mp4"):
        with pytest.raises(InputError, match="has no extension of a picture format"):
            check_picture_file(tmp_path / name)
    save_picture(picture, tmp_path / "x.PNG")
    before = (tmp_path / "x.PNG").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        check_picture_file(tmp_path / "x.PNG")
    with pytest.raises(InputError, match="is the input"):
        check_picture_file(tmp_path / "x.PNG", [tmp_path / "x.PNG"], overwrite=True)
    with pytest.raises(InputError, match="Nothing can be written"):
        save_picture(picture / 2, tmp_path / "x.PNG")
    assert (tmp_path / "x.PNG").read_bytes() == before
    save_picture(picture / 2, tmp_path / "x.PNG", overwrite=True)
    assert Image.open(tmp_path / "x.PNG").size == (30, 20)
    assert names(tmp_path) == ["x.PNG"]


@pytest.fixture
def animate(tmp_path, monkeypatch, capsys):
    """Run the command in the folder with these arguments, and return its error text."""

    def animate(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hallo3_core", "animate", *map(str, words)])
        assert command_line.main() == 2
        complaints = capsys.readouterr().err
        assert complaints.count("\n") == 1
        return complaints

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.chdir(tmp_path)
    yield animate
    signal.signal(signal.SIGINT, handlers[0])
    signal.signal(signal.SIGTERM, handlers[1])


@pytest.mark.parametrize("option", ["speech", "portrait", "face-mask", "model", "isolate-vocals"])
@pytest.mark.parametrize("output", ["output", "framing"])
def test_the_command_replaces_no_input(animate, mine, picture, option, output):
    """It stops before any work, even with --overwrite."""
    given = mine if output == "output" else picture
    before = given.read_bytes()
    complaints = animate(f"--{option}", given, f"--{output}", given.name, "--overwrite")
    assert f"The output {given.name} is the input {given}: choose another name." in complaints
    assert given.read_bytes() == before


def test_the_command_replaces_nothing_unasked(animate, mine, picture):
    assert "mine.mp4 exists already: give --overwrite" in animate("--output", "mine.mp4")
    assert "picture.png exists already: give --over" in animate("--framing", "picture.png")
    assert mine.read_bytes() == b"mine"


def test_the_command_takes_a_free_name(animate, tmp_path, monkeypatch):
    def stop(path, *_):
        raise InputError(f"It would write {path}.")

    monkeypatch.setattr(animate_command, "check_export", stop)
    assert "would write hallo3.mp4." in animate()
    (tmp_path / "hallo3.mp4").touch()
    (tmp_path / "hallo3_2.mp4").touch()
    assert "would write hallo3_3.mp4." in animate()
    assert "would write other.mp4." in animate("--output", "other.mp4")


def test_examples_leave_what_is_there(tmp_path, monkeypatch, capsys):
    """The others are written. With --overwrite, all are written."""
    (tmp_path / "hallo3_speech.wav").write_bytes(b"mine")
    arguments = ["hallo3_core", "examples", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command_line.main() == 0
    assert "hallo3_speech.wav exists already and is kept" in capsys.readouterr().out
    assert (tmp_path / "hallo3_speech.wav").read_bytes() == b"mine"
    assert len(names(tmp_path)) == 5
    monkeypatch.setattr(sys, "argv", [*arguments, "--overwrite"])
    assert command_line.main() == 0
    assert "kept" not in capsys.readouterr().out
    assert (tmp_path / "hallo3_speech.wav").stat().st_size > 10_000
    assert len(names(tmp_path)) == 5
