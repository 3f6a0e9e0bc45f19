"""What the user of `python -m training` sees if something is wrong, or after Ctrl-C."""

import os
import signal
import sys
import time

import pytest

from training import __main__ as command_line
from training.pool import on_all_cores


@pytest.fixture
def train(monkeypatch, capsys):
    """Run a command. Returns the exit status, the printed text and the error text."""

    def train(*words: object):
        monkeypatch.setattr("sys.argv", ["training", *map(str, words)])
        return command_line.main(), *capsys.readouterr()

    yield train
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_file_in_place_of_the_folder(train, tmp_path):
    (tmp_path / "run").touch()
    status, _, complaints = train("drift", tmp_path / "run", "--seconds", 1)
    assert status == 2
    assert complaints.startswith(f"error: {tmp_path / 'run'}")
    assert "cannot be used (Not a directory)" in complaints
    assert complaints.count("\n") == 1


def test_ctrl_c_is_no_traceback(train, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "train_builtin", stop)
    assert train("builtin", tmp_path) == (130, "Stopped.\n", "")


def stop_the_second(index: int) -> tuple[int]:
    """Work of another process. As at Ctrl-C in a terminal, both processes are interrupted."""
    if index == 1:
        for process in (os.getpid(), os.getppid()):
            os.kill(process, signal.SIGINT)
        time.sleep(60)
    return (index,)


@pytest.fixture
def answers_ctrl_c():
    """A process that runs a part of the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
@pytest.mark.usefixtures("answers_ctrl_c")
def test_ctrl_c_ends_other_processes_without_a_word(capfd):
    with pytest.raises(KeyboardInterrupt):
        list(on_all_cores(stop_the_second, 20))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("option", ["seconds 0", "seconds nan", "seconds inf", "seconds soon"])
def test_a_video_without_a_length(train, tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        train("drift", tmp_path, *f"--{option}".split())
    assert "error: argument --seconds" in capsys.readouterr().err
