"""What the user types and sees. The jobs use the built-in model, short speech and one step."""

import argparse
import signal
import subprocess
import sys
import time
import wave
from dataclasses import astuple
from io import BytesIO, TextIOWrapper
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hallo3_core import cli as command_line
from hallo3_core.animate import ModelAnimator
from hallo3_core.cli import animate as animate_command
from hallo3_core.cli.animate import writing
from hallo3_core.clip.segments import Segment
from parity import FIXTURES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def speech(tmp_path) -> Path:
    """A sound file with 0.28 s of noise. The video has 7 frames, which are decoded at once."""
    return noise(tmp_path / "speech.wav", seconds=0.28)


@pytest.fixture
def long_speech(tmp_path) -> Path:
    """A sound file with 2 s of noise: segments of 47 frames and of 3 frames."""
    return noise(tmp_path / "long.wav", seconds=2)


def noise(path: Path, seconds: float) -> Path:
    """A sound file at 22.05 kHz."""
    size = round(22_050 * seconds)
    samples = np.random.default_rng(0).integers(-9000, 9000, size, dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 22_050, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture
def run(tmp_path, speech, monkeypatch, capsys):
    """Run `animate` into `out/video.mp4`, or another command.

    Returns the exit status, the printed text and the error text. True gives the bare option, False
    its opposite, None leaves it out.
    """

    def run(command="animate", **options):
        if command == "animate":
            output = tmp_path / "out" / "video.mp4"
            usual = {"speech": speech, "steps": 1, "output": output, "quiet": True}
            options = usual | options
        words = []
        for name, value in options.items():
            if value is not None:
                words.append(f"--no-{name}" if value is False else f"--{name}")
                words += [] if isinstance(value, bool) else [str(value)]
        monkeypatch.setattr(sys, "argv", ["hallo3_core", command, *words])
        status = command_line.main()
        return status, *capsys.readouterr()

    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    yield run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def shape(path: Path) -> tuple[int, int, int]:
    """The number of frames, the height and the width of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.frames, stream.height, stream.width


def test_a_square_portrait_and_a_wide_one(run, tmp_path, picture):
    status, printed, complaints = run()
    output = tmp_path / "out" / "video.mp4"
    assert (status, complaints) == (0, "")
    assert printed == f"{output}: 0.28 s, 7 frames\n"
    assert shape(output) == (7, 128, 128)
    wide = tmp_path / "out" / "wide.mp4"
    assert run(portrait=picture, output=wide)[0] == 0
    assert shape(wide) == (7, 128, 192)


def test_same_seed_same_video(run, tmp_path):
    videos = []
    for index, seed in enumerate((5, 5, 6)):
        output = tmp_path / "out" / f"{index}.mp4"
        assert run(seed=seed, output=output, store=False)[0] == 0
        videos.append(output.read_bytes())
    assert videos[0] == videos[1] != videos[2]


def test_without_a_name_the_next_free_one_is_taken(run, tmp_path):
    for name in ("hallo3.mp4", "hallo3_2.mp4"):
        _, printed, _ = run(output=None)
        assert printed.startswith(f"{tmp_path / 'out' / name}: ")


def test_finished_segments_are_taken_again(run, tmp_path):
    """The second video is the same, and `store` lists the segments."""
    outputs = [tmp_path / "out" / name for name in ("first.mp4", "second.mp4", "third.mp4")]
    prints = [run(output=output)[1] for output in outputs[:2]]
    assert [text.splitlines()[1:] for text in prints] == [
        [],
        ["1 of 1 segments were kept from an earlier run."],
    ]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert "segments: 1 segments, 0.00 of 20 GB" in run("store")[1]
    assert "segments: 0 segments" in run("store", empty=True)[1]
    assert len(run(output=outputs[2])[1].splitlines()) == 1


def test_options_reach_the_job(run, tmp_path, picture, monkeypatch):
    jobs = []

    def make_segments(animator, identity, *_, **__):
        jobs.append(animator)
        yield Segment(0, torch.empty(0), torch.zeros(7, *identity.size, 3))

    monkeypatch.setattr(writing, "make_segments", make_segments)
    mask = Image.new("L", (90, 60))
    mask.paste(255, (30, 20, 60, 40))
    mask.save(tmp_path / "mask.png")
    run(portrait=picture)
    run(
        output="changed.mp4",
        portrait=picture,
        seed=9,
        prompt="a person speaks",
        steps=7,
        sampler="ddim",
        guidance=2.5,
        dtype="bfloat16",
        **{"face-mask": tmp_path / "mask.png"},
    )
    job, changed = jobs
    assert (job.model.dtype, job.noise.seed, job.speech.frames) == (torch.float32, 0, 7)
    assert job.prompt(0) is None
    assert astuple(job.settings)[:3] == (1, 1.0, "few")
    assert (changed.model.dtype, changed.noise.seed) == (torch.bfloat16, 9)
    assert changed.prompt(0).shape == (1, 226, 4096)
    assert astuple(changed.settings)[:3] == (7, 2.5, "ddim")
    assert torch.equal(job.identity.portrait, changed.identity.portrait)
    difference = job.identity.features[0] - changed.identity.features[0].float()
    assert difference.abs().max() > 0.1


def test_speakers_on_the_command_line(run, tmp_path, picture, speech, monkeypatch):
    """Two turns of 0.3 s, with half a second of silence after each, at half the strength."""
    jobs = []

    def make_segments(animator, identity, *_, **__):
        jobs.append(animator)
        yield Segment(0, torch.empty(0), torch.zeros(40, *identity.size, 3))

    monkeypatch.setattr(writing, "make_segments", make_segments)
    masks = []
    for name, box in (("left", (0, 0, 45, 60)), ("right", (45, 0, 90, 60))):
        mask = Image.new("L", (90, 60))
        mask.paste(255, box)
        masks.append(tmp_path / f"{name}.png")
        mask.save(masks[-1])
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("0 two people\n1.5 they smile", "utf-8")
    options = ["--speaker", str(masks[0]), str(speech), "--speaker", str(masks[1]), str(speech)]
    options += ["--turns", "--silence-after", "0.5", "--prompt", str(prompts), "--no-store"]
    output = str(tmp_path / "two.mp4")
    command = ["hallo3", "animate", "--portrait", str(picture), *options, "--output", output]
    monkeypatch.setattr("sys.argv", [*command, "--speech-strength", "0.5", "--quiet"])
    assert command_line.main() == 0
    (job,) = jobs
    assert [speaker.start for speaker in job.speech.speakers] == [0, 20]
    assert job.speech.frames == 40
    assert job.settings.speech_strength == 0.5
    left, right = (speaker.region for speaker in job.speech.speakers)
    assert torch.equal(left + right, torch.ones(60, 90))
    assert not torch.equal(job.prompt(0), job.prompt(1))


def test_settings_suit_the_model(tmp_path):
    """Few steps for a distilled model or LoRA; what was given comes first."""
    lora = tmp_path / "few.safetensors"
    save_file({"x": torch.zeros(1)}, lora, {"hallo3_steps": "8"})
    many, few = (50, 3.5, "sde-dpm++2m"), (4, 1.0, "few")
    for words, expected in (
        ([], few),
        (["--steps", "6"], (6, *few[1:])),
        (["--undistilled"], many),
        (["--model", "released"], many),
        (["--model", "released", "--lora", str(lora)], (8, *few[1:])),
        (["--model", "released", "--lora", str(lora), "--guidance", "2"], (8, 2.0, "few")),
    ):
        parser = argparse.ArgumentParser()
        animate_command.add(parser)
        options = parser.parse_args(words)
        assert astuple(animate_command.settings_of(options))[:3] == expected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"portrait": "nowhere.png"}, "There is no picture nowhere.png"),
        ({"portrait": "{speech}"}, "cannot be read as a picture"),
        ({"speech": "nowhere.wav"}, "There is no sound file nowhere.wav"),
        ({"speech": "{picture}"}, "has no sound track"),
        ({"steps": 0}, "The number of steps is 0"),
        ({"guidance": "nan"}, "The guidance is nan"),
        ({"colour-anchor": "2"}, "The colour anchor is 2: give a number from 0 to 1"),
        ({"text-guidance": "-2"}, "The text guidance is -2: give a number from -1 to 30"),
        ({"output": "nowhere/video.mp4"}, "There is no folder nowhere"),
        ({"output": "{folder}/folder.mp4"}, "is a folder"),
        ({"output": "/proc/video.mp4"}, "Nothing can be written to /proc"),
        ({"output": "video.avi"}, "does not end in .mp4"),
        ({"output": f"{'long' * 70}.mp4"}, ".mp4 cannot be used (File name too long)"),
        ({"model": "long" * 70}, "cannot be used (File name too long)"),
        ({"prompt": "{picture}"}, "picture.png cannot be read as text (it is not UTF-8)"),
        ({"speech-curve": "{picture}"}, "picture.png cannot be read as text (it is not UTF-8)"),
        ({"device": "cuda:99"}, "The device cuda:99 cannot be used"),
        ({"device": "meta"}, "The device meta cannot be used"),
        ({"device": "toaster"}, "The device toaster cannot be used"),
        ({"face-mask": "nowhere.png"}, "There is no picture nowhere.png"),
        ({"prompt": "{prompts}"}, "Line 2 of the prompts is 'she smiles'"),
        ({"speech-curve": "{prompts}"}, "cannot be read as a list of numbers"),
        ({"speech-curve": "{curve}"}, "has 3 numbers and the speech 7 frames"),
        ({"silence-after": -1}, "The silence is -1 s long"),
        ({"model": "nowhere"}, "There is no model nowhere"),
        ({"model": "{folder}"}, "There is no Hallo3 model in"),
        ({"model": "{speech}"}, "is a sound or a video, not weights"),
        ({"model": "{vae}"}, "is not the Hallo3 transformers but the CogVideoX VAE"),
    ],
)
def test_bad_input_is_told_in_one_sentence(run, tmp_path, picture, speech, options, says):
    places = {
        "speech": speech,
        "picture": picture,
        "folder": tmp_path,
        "vae": FIXTURES / "vae_weights.safetensors",
        "prompts": tmp_path / "prompts.txt",
        "curve": tmp_path / "curve.txt",
    }
    (tmp_path / "folder.mp4").mkdir()
    places["prompts"].write_text("0 a woman\nshe smiles", "utf-8-sig")
    places["curve"].write_text("1, 1\n0.5", "utf-8-sig")
    options = {name: str(value).format(**places) for name, value in options.items()}
    status, printed, complaints = run(**options)
    assert (status, printed) == (2, "")
    assert complaints.startswith("error: ")
    assert says in complaints
    assert complaints.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_any_name_of_a_file(run, tmp_path, monkeypatch):
    """Also one that the terminal cannot show."""
    name = "a 'b' \"c\" 100%d ü \N{MICROPHONE}.mp4"
    with TextIOWrapper(BytesIO(), encoding="ascii") as narrow:
        monkeypatch.setattr(sys, "stdout", narrow)
        assert run(output=name)[0] == 0
        narrow.seek(0)
        assert r"100%d \xfc \U0001f3a4.mp4: 0.28 s, 7 frames" in narrow.read()
    assert shape(tmp_path / "out" / name) == (7, 128, 128)


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


def test_stopping_keeps_the_segments_done(run, long_speech, tmp_path, monkeypatch):
    """The unfinished video gets another name, and the next run continues from there."""
    sample, sampled = ModelAnimator.sample, []

    def stop_in_the_second(self, index, motion, seed):
        sampled.append(index)
        if sampled == [0, 1]:
            raise KeyboardInterrupt
        return sample(self, index, motion, seed)

    monkeypatch.setattr(ModelAnimator, "sample", stop_in_the_second)
    status, printed, _ = run(speech=long_speech)
    unfinished = tmp_path / "out" / "video.unfinished.mp4"
    assert status == 130
    assert printed == f"Stopped. {unfinished}: 1.88 s, 47 frames. Start again to continue.\n"
    assert shape(unfinished) == (47, 128, 128)
    status, printed, _ = run(speech=long_speech)
    assert status == 0
    assert printed.endswith("50 frames\n1 of 2 segments were kept from an earlier run.\n")
    assert sampled == [0, 1, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_a_killed_job_goes_on_where_it_was(run, long_speech, tmp_path):
    """A process is killed after its first segment."""
    command = [sys.executable, "-m", "hallo3_core", "animate", "--steps", "1", "--quiet"]
    command += ["--speech", long_speech, "--output", tmp_path / "out" / "killed.mp4"]
    process = subprocess.Popen(command, cwd=ROOT)
    while not list((tmp_path / "segments").glob("*.segment")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert "of 2 segments were kept from an earlier run" in run(speech=long_speech)[1]
    assert shape(tmp_path / "out" / "video.mp4") == (50, 128, 128)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_before_the_first_segment_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "hallo3_core", "animate", "--output", tmp_path / "v.mp4"]
    process = subprocess.Popen(
        [*command, "--undistilled", "--no-store"],  # its first segment takes a while
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background of a shell ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while "steps" not in process.stderr.readline():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=300)
    assert process.returncode == 130
    assert printed == "Stopped before the first segment was done.\n"
    assert "Traceback" not in complaints
    assert list(tmp_path.iterdir()) == []
