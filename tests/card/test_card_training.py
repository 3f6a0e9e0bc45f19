"""Training on a card gives the losses and the weights of the CPU, even if stopped and restarted."""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from npu import CARD
from safetensors.torch import load_file
from torch import Tensor, nn

from hallo3_core import builtin
from hallo3_core.errors import InputError
from hallo3_core.model.finding import TRANSFORMER_FILE
from hallo3_core.network.config import NEW_FRAMES
from hallo3_core.speech import encode as speech
from hallo3_core.speech.encode import encode_speech
from hallo3_core.speech.windows import windows
from small_model import save_model
from training import (
    autoencoder,
    denoiser,
    examples,
    face_reader,
    finetune,
    loop,
    measure,
    networks,
    speech_encoder,
)
from training.loop import Settings
from training.measure import CASES, talks
from training.networks import Batch, Networks
from training.window import window_on
from training.world.clips import clip
from training.world.film import film
from training_data import WIDE, TwoShots, autoencoder_stage, batch_with_mouths, clips_of_noise, shot

SETTINGS = Settings(steps=1, rate=1e-2, matrix_rate=1e-2, warmup=1)
CPU = torch.device("cpu")


@pytest.fixture
def on(monkeypatch):
    """Train on a device, in float32 or with products in bf16."""

    def use(device: torch.device, half: bool = False) -> None:
        monkeypatch.setattr(denoiser, "WATCHED", 2)
        for module in (loop, denoiser, autoencoder, face_reader, examples, finetune):
            monkeypatch.setattr(module, "DEVICE", device)
        for module in (loop, networks):
            monkeypatch.setattr(module, "HALF", half)
        monkeypatch.setattr(finetune, "COMPUTE", torch.bfloat16 if half else torch.float32)
        # other processes do not have the pretended card
        monkeypatch.setattr(examples, "DataLoader", lambda shots, **_: [*shots])

    return use


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("small model"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """One shot of a drawing that speaks, with a caption."""
    folder = tmp_path_factory.mktemp("clips")
    film(clip("train", 1, (96, 96), 50), folder / "one.mp4")
    (folder / "one.txt").write_text("a woman speaks")
    return folder


def tuned(run: Path, model: Path, clips: Path, **options) -> dict[str, Tensor]:
    """The weights after fine-tuning: all of them, or those of a LoRA that start at zero."""
    usual = {"stage": "speech", "steps": 2, "rate": 1.0, "batch": 1, "lora": None}
    usual |= {"unseen": None, "face_models": None}
    files = finetune.finetune(
        Namespace(**usual | {"run": run, "model": model, "clips": clips} | options)
    )
    return {name: value.float() for name, value in load_file(files[0]).items() if "_A" not in name}


def apart(found: dict[str, Tensor], expected: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """The distance between two trained models, relative to how far training moved the weights."""
    assert found.keys() == expected.keys()
    way = [expected[name] - start.get(name, torch.zeros(())) for name in expected]
    between = [found[name] - expected[name] for name in expected]
    norms = [torch.cat([part.flatten() for part in parts]).norm() for parts in (between, way)]
    assert norms[1] > 0.1
    return (norms[0] / norms[1]).item()


@pytest.fixture
def uncounted(monkeypatch):
    """Skip counting the memory of fine-tuning, which takes seconds."""
    monkeypatch.setattr(finetune, "bytes_needed", lambda *_: 0)


@pytest.mark.parametrize(("stage", "lora"), [("speech", None), ("identity", 2)])
def test_fine_tuning(on, uncounted, tmp_path, model, clips, stage, lora):
    """All weights of a stage, and a LoRA. The loss of unseen clips is logged, too."""
    made, losses = [], []
    for device in (CPU, CARD):
        on(device)
        run = tmp_path / device.type
        made.append(tuned(run, model, clips, stage=stage, lora=lora, unseen=clips))
        (log,) = run.rglob("losses.jsonl")
        losses.append(json.loads(log.read_text().splitlines()[-1]))
    published = torch.load(model / TRANSFORMER_FILE)["module"]
    assert apart(*made, start={} if lora else published) < 0.01
    for name in ("v", "unseen v", "norm"):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-3)


def test_a_lora_with_products_in_bf16(on, uncounted, tmp_path, model, clips):
    """Frozen weights are in bf16. The weights of the LoRA are in float32."""
    on(CARD, half=True)
    found = tuned(tmp_path / "half", model, clips, lora=2)
    on(CPU)
    expected = tuned(tmp_path / "whole", model, clips, lora=2)
    assert 1e-3 < apart(found, expected, start={}) < 0.3


def test_fine_tuning_that_was_stopped_goes_on(on, uncounted, tmp_path, model, clips, monkeypatch):
    on(CARD)
    whole = tuned(tmp_path / "whole", model, clips, lora=2, steps=3)
    shutil.copytree(tmp_path / "whole" / "examples", tmp_path / "broken" / "examples")
    draw, seen = denoiser.draw_batch, []

    def drawn(examples, stage, step: int) -> Batch:
        seen.append(step)
        if seen == [0, 1, 2]:
            raise InterruptedError
        return draw(examples, stage, step)

    monkeypatch.setattr(denoiser, "draw_batch", drawn)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(InterruptedError):
        tuned(tmp_path / "broken", model, clips, lora=2, steps=3)
    resumed = tuned(tmp_path / "broken", model, clips, lora=2, steps=3)
    assert seen == [0, 1, 2, 2]
    assert apart(resumed, whole, start={}) == 0


def test_a_card_that_is_too_small_for_fine_tuning(on, tmp_path, model, clips, monkeypatch):
    on(CARD)
    monkeypatch.setattr(finetune, "free_memory", lambda device: 0)
    with pytest.raises(InputError, match=r"Fine-tuning takes .* of the card and 0\.0 GB are free"):
        tuned(tmp_path, model, clips, lora=2)


@torch.no_grad()
def test_losses_of_windows_and_of_parts(on):
    """Two examples have mouths at different places. They are also computed one after the other."""
    nets = Networks.empty(WIDE).eval()
    batch = batch_with_mouths(nets)
    made = []
    for device in (CPU, CARD):
        on(device)
        nets, batch = nets.to(device), batch.to(device)
        window = window_on(batch.lips, nets.config, np.random.default_rng(0))
        found = [denoiser.losses(nets, batch, window)]
        found += [denoiser.losses(nets, part) for part in (batch, *batch.split(1))]
        made.append([losses["v"].item() for losses in found])
    assert made[1] == pytest.approx(made[0], rel=1e-4)


def way_apart(on, train: Callable[[str, Settings], nn.Module]) -> float:
    """The distance between training on the CPU and on the card, relative to how far it moved."""
    on(CPU)
    start = train("start", replace(SETTINGS, steps=0)).state_dict()
    expected = train("cpu", SETTINGS).state_dict()
    on(CARD)
    return apart(train("card", SETTINGS).state_dict(), expected, start)


def test_the_autoencoder_is_trained(on, tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoder, "pictures", lambda *_: clips_of_noise())

    def train(name: str, settings: Settings) -> nn.Module:
        return autoencoder.train(tmp_path / name, (autoencoder_stage(settings),))

    assert way_apart(on, train) < 0.05


def test_the_speech_encoder_is_trained(on, tmp_path, monkeypatch):
    numbers = np.random.default_rng(0)
    frames = speech_encoder.FRAMES
    pool = numbers.normal(0, 0.1, (2, frames * 640)), numbers.random((2, frames, 3), np.float32)
    monkeypatch.setattr(speech_encoder, "sounds", lambda *_: pool)
    monkeypatch.setattr(speech_encoder, "BATCH", 1)
    assert way_apart(on, lambda name, s: speech_encoder.train(tmp_path / name, s)) < 0.05


def test_shots_are_encoded(on, monkeypatch):
    """The numbers are the same. The speech is long enough to be kept in a file."""
    model = builtin.load()
    vae, encoder = model.vae, model.speech_encoder
    monkeypatch.setattr(speech, "LONGEST_PASS", 10)
    on(CPU)
    expected = examples.encode(vae, encoder, shot(), torch.Generator().manual_seed(0))
    on(CARD)
    nn.Module.to(vae, CARD)
    encoder.to(CARD)
    found = examples.encode(vae, encoder, shot(), torch.Generator().manual_seed(0))
    for name, value in expected.items():
        assert (found[name].float() - value.float()).abs().max() < 2e-3, name
    whole = windows(encode_speech(builtin.load().speech_encoder, shot().waveform).features, 18, 71)
    assert (expected["speech"].float() - whole[:, 2].float()).abs().max() < 2e-3


def test_the_encoders_leave_the_card(on, tmp_path):
    model = builtin.load()
    on(CARD)
    made = examples.prepare(tmp_path, TwoShots("shots"), model.vae, model.speech_encoder)
    assert [file.exists() for file in made.files] == [True, True]
    assert {model.vae.device.type, model.speech_encoder.device.type} == {"cpu"}


def test_videos_are_measured(monkeypatch):
    """An identity and latents are encoded on the card, and the bytes come from there."""
    model, (index, heard) = builtin.load().placed(CARD), next(talks(frames=NEW_FRAMES))
    grey = torch.full((NEW_FRAMES, 2, 2, 3), 0.5, device=CARD)

    def decoded(vae, latents, count: int) -> Tensor:
        assert latents.device == CARD
        return grey

    def segments(model, identity, *_, **options):
        assert {tokens.device.type for tokens in identity.features} == {"cpu"}  # the resting place
        yield SimpleNamespace(frames=grey)

    monkeypatch.setattr(measure, "FRAMES", NEW_FRAMES)
    monkeypatch.setattr(measure, "decode_images", decoded)
    monkeypatch.setattr(measure, "animate", segments)
    case = CASES["no reference"]
    for video in (
        measure.animated(model, case, index, heard),
        measure.reconstructed(model, 0.1, index, heard),
    ):
        assert np.array_equal(next(iter(video)), np.full((2, 2, 3), 128, np.uint8))
