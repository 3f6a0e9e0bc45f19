"""The commands that need no networks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from hallo3_core import cli as command_line
from hallo3_core import examples
from hallo3_core.sound.sound_file import read_sound
from hallo3_core.store.segment_store import SegmentStore

ROOT = Path(__file__).parents[2]


def test_examples_are_copied_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hallo3_core", "examples", str(tmp_path)])
    assert command_line.main() == 0
    names = ("portrait.png", "group.png", "pair.png", "speech.wav", "song.wav")
    portrait, group, pair, speech, song = files = [tmp_path / f"hallo3_{name}" for name in names]
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    assert Image.open(portrait).size == (512, 512)
    assert Image.open(group).size == (1536, 512)
    assert Image.open(pair).size == (768, 512)
    assert speech.read_bytes() == examples.SPEECH.read_bytes()
    spoken, sung = read_sound(speech), read_sound(song)
    assert spoken.rate == 16_000
    assert sung.samples == spoken.samples
    assert 0.01 < (sung.mono() - spoken.mono()).std() < 0.2


@pytest.fixture
def store(monkeypatch, capsys):
    """Run `store`. Returns the exit status, the printed text and the error text."""

    def store(*words: str):
        monkeypatch.setattr(sys, "argv", ["hallo3_core", "store", *words])
        return command_line.main(), *capsys.readouterr()

    return store


@pytest.mark.parametrize("gigabytes", ["much", "nan", "inf"])
def test_a_size_of_the_store_that_is_no_number(store, monkeypatch, gigabytes):
    monkeypatch.setenv("HALLO3_STORE_GB", gigabytes)
    complaint = f"error: HALLO3_STORE_GB is '{gigabytes}': set it to a number of GB, such as 20.\n"
    assert store() == (2, "", complaint)


def test_the_folder_of_the_store_that_was_named(store, tmp_path):
    """Only that folder is emptied, also if HALLO3_STORE names another one."""
    other = tmp_path / "other"
    for folder in (other, tmp_path / "segments"):
        SegmentStore(folder).put_latents("a", torch.zeros(3))
    assert "other: 0 segments" in store("--folder", str(other), "--empty")[1]
    assert "segments: 1 segments" in store()[1]
    assert list(other.iterdir()) == []


def test_ctrl_c_while_the_libraries_load(store, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "imported", stop)
    assert store() == (130, "Stopped.\n", "")


@pytest.mark.parametrize("command", ["download", "examples", "store"])
def test_commands_without_networks_start_at_once(command):
    """diffusers and transformers take seconds to import."""
    code = (
        "import sys\n"
        "from hallo3_core import cli\n"
        f"cli.parse(['{command}'])\n"
        "print(*{'diffusers', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert not done.stdout.split()
