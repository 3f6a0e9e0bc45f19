"""Fine-tuning of the built-in model on a folder with a clip, by the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hallo3_core.builtin import CONFIG, load, text_encoder
from hallo3_core.errors import InputError
from hallo3_core.model.loading import load_transformers
from hallo3_core.portrait.faces import Finder
from hallo3_core.portrait.finders import find_frontal_faces
from training import __main__ as command_line
from training.folder import FolderShots, read_caption

ROOT = Path(__file__).resolve().parents[2]


def frontal_faces() -> Finder:
    return find_frontal_faces


def test_shots_of_a_clip(clips):
    (shot,) = FolderShots(clips, CONFIG, frontal_faces, text_encoder)
    height, width = CONFIG.canvas
    assert shot.frames.shape == (3, 49, height, width)
    assert shot.portraits.shape == (2, 3, height, width)
    assert torch.equal(shot.portraits[0], shot.frames[:, 0])
    assert (shot.frames[..., :32] == -1).all()
    assert 0.05 < shot.regions[0].mean() < 0.6
    assert abs(len(shot.waveform) - 60 * 640) < 2500


def test_a_folder_without_clips(tmp_path):
    with pytest.raises(InputError, match="No video in"):
        FolderShots(tmp_path, CONFIG, frontal_faces, text_encoder)
    with pytest.raises(InputError, match="There is no folder"):
        FolderShots(tmp_path / "none", CONFIG, frontal_faces, text_encoder)


def test_a_caption_beside_a_clip(clips, tmp_path):
    shutil.copy(clips / "one.mp4", tmp_path)
    (tmp_path / "one.txt").write_text("a drawing that speaks")
    (shot,) = FolderShots(tmp_path, CONFIG, frontal_faces, text_encoder)
    assert torch.equal(shot.text, text_encoder()("a drawing that speaks")[0])


def test_captions_are_utf_8_whatever_the_system_has(tmp_path):
    """With a mark at the beginning or without."""
    caption = "eine Frau lächelt, 女の人"
    (tmp_path / "plain.txt").write_bytes(caption.encode())
    (tmp_path / "marked.txt").write_bytes(caption.encode("utf-8-sig"))
    program = (
        "import sys; from pathlib import Path; from training.folder import read_caption\n"
        "print(*(ascii(read_caption(Path(file))) for file in sys.argv[1:]), sep='\\n')"
    )
    files = [tmp_path / "plain.txt", tmp_path / "marked.txt"]
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, *files],
        cwd=ROOT,
        env=os.environ | ascii_alone,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [ascii(caption)] * 2, done.stderr


def test_a_caption_in_another_encoding(tmp_path):
    (tmp_path / "one.txt").write_bytes("lächelt".encode("latin-1"))
    with pytest.raises(InputError, match=r"one\.txt is not in UTF-8"):
        read_caption(tmp_path / "one.txt")


def test_a_name_that_is_no_text(clips, tmp_path):
    """It goes into the header of the examples, which is UTF-8."""
    shots = FolderShots(clips, CONFIG, frontal_faces, text_encoder)
    strange = tmp_path / "caf\udce9.mp4"
    shutil.copy(clips / "one.mp4", strange)
    shots.places = [(strange, 0)]
    assert shots.title(0).encode().startswith(b"'caf\\udce9.mp4' ")


def finetune(run: Path, clips: Path) -> list[str]:
    options = ["finetune", run, "--clips", clips, "--unseen", clips, "--steps", 2, "--rate", 1e-3]
    return [str(option) for option in options]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, clips) -> tuple[Path, str]:
    """The folder of a run that trains all weights of a stage, and what it prints."""
    run = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "training", *finetune(run, clips)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return run, done.stdout


def test_all_weights_of_a_stage(whole):
    """What comes out loads, and differs from the model that went in by its audio modules alone."""
    run, printed = whole
    file = run / "models" / "diffusion_models" / "hallo3_dit_bf16.safetensors"
    assert str(file) in printed
    denoiser, reference, _ = load_transformers(file, torch.float32)
    before = load(distilled=False)
    for mine, other in ((denoiser, before.denoiser), (reference, before.reference_network)):
        old = other.bfloat16().float().state_dict()
        changed = {name for name, p in mine.state_dict().items() if not torch.equal(p, old[name])}
        assert bool(changed) == (mine is denoiser)
        assert all("audio" in name for name in changed)
    assert (run / "speech" / "losses.png").exists()
    assert "unseen v" in (run / "speech" / "losses.jsonl").read_text()


@pytest.mark.parametrize("stage", ["speech", "identity"])
def test_a_lora(whole, clips, stage, monkeypatch):
    """In the same folder, where the clips are encoded already."""
    run, _ = whole
    words = ["training", *finetune(run, clips), "--lora", "2", "--stage", stage]
    monkeypatch.setattr(sys, "argv", words)
    assert command_line.main() == 0
    additions = load_file(run / f"hallo3_{stage}_lora_2.safetensors")
    places = {name.rsplit(".", 2)[0] for name in additions}
    inside = {f"diffusion_model.{name}" for name, _ in load().denoiser.named_modules()}
    assert places <= inside
    assert len(places) == len(additions) / 2
    assert any("audio_attention" in place for place in places) == (stage == "speech")
    assert {len(value) for name, value in additions.items() if "lora_A" in name} == {2}
