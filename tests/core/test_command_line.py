"""What the user types and sees. Jobs run on the built-in model, short and in one step."""

import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hallo3_core import __main__ as command_line
from hallo3_core import builtin
from hallo3_core.animate import Segment
from hallo3_core.video import read_speech
from parity import FIXTURES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def speech(tmp_path) -> Path:
    """0.3 s of noise at 22.05 kHz: 8 frames."""
    samples = np.random.default_rng(0).integers(-9000, 9000, 6615, dtype=np.int16)
    with wave.open(str(path := tmp_path / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 22_050, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture
def run(tmp_path, speech, monkeypatch, capsys):
    """Animate into `out/video.mp4`; gives exit status, what was printed and complained of."""

    def run(**options):
        options = {
            "speech": speech,
            "steps": 1,
            "output": tmp_path / "out" / "video.mp4",
            **options,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", ["hallo3_core", "animate", *words, "--quiet"])
        status = command_line.main()
        return status, *capsys.readouterr()

    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    yield run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def shape(path: Path) -> tuple[int, int, int]:
    """Frames, height and width of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.frames, stream.height, stream.width


def test_a_square_portrait_and_a_wide_one(run, tmp_path, picture):
    status, printed, complaints = run()
    output = tmp_path / "out" / "video.mp4"
    assert (status, complaints) == (0, "")
    assert printed == f"{output}: 0.32 s, 8 frames\n"
    assert shape(output) == (8, 128, 128)
    status, *_ = run(portrait=picture)
    assert status == 0
    assert shape(output) == (8, 128, 192)


def test_same_seed_same_video(run, tmp_path):
    output = tmp_path / "out" / "video.mp4"
    videos = []
    for seed in (5, 5, 6):
        assert run(seed=seed)[0] == 0
        videos.append(output.read_bytes())
    assert videos[0] == videos[1] != videos[2]


def test_options_reach_the_job(run, tmp_path, picture, monkeypatch):
    jobs = []

    def animate(model, identity, speech, noise, **options):
        jobs.append((model, identity, speech, noise, options))
        frames = torch.zeros(8, *identity.size, 3)
        yield Segment(0, torch.empty(0), frames, frames[0])

    monkeypatch.setattr(command_line, "animate", animate)
    mask = Image.new("L", (90, 60))
    mask.paste(255, (30, 20, 60, 40))
    mask.save(tmp_path / "mask.png")
    run(portrait=picture)
    run(
        portrait=picture,
        seed=9,
        prompt="a person speaks",
        steps=7,
        sampler="ddim",
        guidance=2.5,
        dtype="bfloat16",
        **{"face-mask": tmp_path / "mask.png"},
    )
    (model, identity, speech, noise, options), changed = jobs
    assert (model.dtype, noise.seed, speech.frames) == (torch.float32, 0, 8)
    assert options["text"] is None
    assert (options["steps"], options["guidance"], options["sampler"]) == (1, 3.5, "sde-dpm++2m")
    changed_model, changed_identity, _, changed_noise, options = changed
    assert (changed_model.dtype, changed_noise.seed) == (torch.bfloat16, 9)
    assert options["text"].shape == (1, 226, 4096)
    assert (options["steps"], options["guidance"], options["sampler"]) == (7, 2.5, "ddim")
    assert torch.equal(identity.portrait, changed_identity.portrait)
    difference = identity.features[0] - changed_identity.features[0].float()
    assert difference.abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"portrait": "nowhere.png"}, "There is no picture nowhere.png"),
        ({"portrait": "{speech}"}, "is no picture that can be read"),
        ({"speech": "nowhere.wav"}, "There is no sound file nowhere.wav"),
        ({"speech": "{picture}"}, "has no sound track"),
        ({"steps": 0}, "The number of steps is 0"),
        ({"guidance": "nan"}, "The guidance is nan"),
        ({"output": "nowhere/video.mp4"}, "There is no folder nowhere"),
        ({"output": "{folder}/folder.mp4"}, "is a folder"),
        ({"output": "/proc/video.mp4"}, "Nothing can be written to /proc"),
        ({"output": "video.avi"}, "does not end in .mp4"),
        ({"device": "cuda:99"}, "The device cuda:99 cannot be used"),
        ({"device": "meta"}, "The device meta cannot be used"),
        ({"device": "toaster"}, "The device toaster cannot be used"),
        ({"face-mask": "nowhere.png"}, "There is no picture nowhere.png"),
        ({"model": "nowhere"}, "There is no model nowhere"),
        ({"model": "{folder}"}, "There is no weights file"),
        ({"model": "{speech}"}, "damaged or cut short"),
        ({"model": "{vae}"}, "is not Hallo3 but the CogVideoX VAE"),
    ],
)
def test_bad_input_is_told_in_one_sentence(run, tmp_path, picture, speech, options, says):
    places = {
        "speech": speech,
        "picture": picture,
        "folder": tmp_path,
        "vae": FIXTURES / "vae_weights.safetensors",
    }
    (tmp_path / "folder.mp4").mkdir()
    options = {name: str(value).format(**places) for name, value in options.items()}
    status, printed, complaints = run(**options)
    assert (status, printed) == (2, "")
    assert complaints.startswith("error: ")
    assert says in complaints
    assert complaints.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_that_are_not_whole(run, tmp_path):
    file = tmp_path / "hallo3" / "1" / "mp_rank_00_model_states.pt"
    file.parent.mkdir(parents=True)
    torch.save({"module": {"ref_model.diffusion_model.x": torch.zeros(1)}}, file)
    status, _, complaints = run(model=tmp_path)
    assert status == 2
    assert "lacks" in complaints
    file.write_bytes(file.read_bytes()[:-300])
    status, _, complaints = run(model=tmp_path)
    assert status == 2
    assert "damaged or cut short" in complaints


def test_examples_are_copied_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hallo3_core", "examples", str(tmp_path)])
    assert command_line.main() == 0
    names = ("portrait.png", "group.png", "speech.wav", "song.wav")
    portrait, group, speech, song = files = [tmp_path / f"hallo3_{name}" for name in names]
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    assert Image.open(portrait).size == (512, 512)
    assert Image.open(group).size == (1024, 512)
    assert speech.read_bytes() == builtin.SPEECH.read_bytes()
    (spoken, rate), (sung, _) = read_speech(speech), read_speech(song)
    assert rate == 16_000
    assert sung.shape == spoken.shape
    assert 0.01 < (sung - spoken).std() < 0.2


def test_stopping_keeps_the_segments_done(run, tmp_path, monkeypatch):
    def animate(model, identity, *_, **__):
        height, width = identity.size
        frames = torch.zeros(47, height, width, 3)
        yield Segment(0, torch.empty(0), frames, frames[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "animate", animate)
    output = tmp_path / "out" / "video.mp4"
    status, printed, _ = run(speech=builtin.SPEECH)
    assert status == 130
    assert printed == f"Stopped. {output}: 1.88 s, 47 frames.\n"
    assert shape(output) == (47, 128, 128)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_before_the_first_segment_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "hallo3_core", "animate", "--output", tmp_path / "v.mp4"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "steps" not in process.stderr.readline():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed == "Stopped before the first segment was done.\n"
    assert "Traceback" not in complaints
    assert list(tmp_path.iterdir()) == []
