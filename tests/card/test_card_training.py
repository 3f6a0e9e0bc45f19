"""Training on a card: the losses and the weights of the CPU, a stop and a start among them."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from npu import CARD
from safetensors.torch import load_file
from torch import Tensor, nn

from hallo3_core import builtin, speech
from hallo3_core.config import NEW_FRAMES, SAMPLE_RATE
from hallo3_core.errors import InputError
from hallo3_core.segments import windows
from hallo3_core.sound import Sound
from hallo3_core.speech import encode_speech
from hallo3_core.video import VideoWriter
from small_model import CONFIG, save_model
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
from training.examples import Shot
from training.loop import Settings
from training.measure import CASES, talks
from training.memory import empty_batch
from training.networks import Batch, Networks
from training.window import window_on
from training.world.clips import clip

SETTINGS = Settings(steps=2, rate=1e-2, matrix_rate=1e-2, warmup=1)
CPU = torch.device("cpu")


@pytest.fixture
def on(monkeypatch):
    """Train on a device, in float32 or with products in bf16."""

    def use(device: torch.device, half: bool = False) -> None:
        for module in (loop, denoiser, autoencoder, face_reader, examples, finetune):
            monkeypatch.setattr(module, "DEVICE", device)
        for module in (loop, networks):
            monkeypatch.setattr(module, "HALF", half)
        monkeypatch.setattr(finetune, "COMPUTE", torch.bfloat16 if half else torch.float32)
        # the pretended card is not one of another process
        monkeypatch.setattr(examples, "DataLoader", lambda shots, **_: [*shots])

    return use


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("small model"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """One shot of a drawing that speaks, with a caption."""
    folder, made = tmp_path_factory.mktemp("clips"), clip("train", 1, (96, 96), 50)
    sound = Sound(torch.from_numpy(made.waveform)[None], SAMPLE_RATE)
    with VideoWriter(folder / "one.mp4", 96, 96, sound) as video:
        video.write(torch.from_numpy(made.frames) / 255)
    (folder / "one.txt").write_text("a woman speaks")
    return folder


def tuned(run: Path, model: Path, clips: Path, **options) -> dict[str, Tensor]:
    """The weights that fine-tuning leaves."""
    usual = {"stage": "speech", "steps": 2, "rate": 1e-3, "batch": 1, "lora": None}
    usual |= {"unseen": None, "face_models": None}
    files = finetune.finetune(
        Namespace(**usual | {"run": run, "model": model, "clips": clips} | options)
    )
    return load_file(files[0])


def farthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max((found[n].float() - value.float()).abs().max() for n, value in expected.items())


@pytest.mark.parametrize(("stage", "lora"), [("speech", None), ("identity", 2)])
def test_fine_tuning(on, tmp_path, model, clips, stage, lora):
    """All weights of a stage, and a LoRA; the loss of clips that are not trained on is there."""
    made = []
    for device in (CPU, CARD):
        on(device)
        run = tmp_path / device.type
        made.append(tuned(run, model, clips, stage=stage, lora=lora, unseen=clips))
    logs = [
        next((tmp_path / device.type).rglob("losses.jsonl")).read_text() for device in (CPU, CARD)
    ]
    assert farthest(*made) < (1e-4 if lora else 1e-2)  # all weights are saved in bf16
    losses = [json.loads(log.splitlines()[-1]) for log in logs]
    for name in ("v", "unseen v", "norm"):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-3)


def test_a_lora_with_products_in_bf16(on, tmp_path, model, clips):
    """Frozen weights are in bf16, those of the LoRA in float32."""
    on(CARD, half=True)
    found = tuned(tmp_path / "half", model, clips, lora=2)
    on(CPU)
    expected = tuned(tmp_path / "whole", model, clips, lora=2)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert 0 < farthest(found, expected) < 5e-3


def test_fine_tuning_that_was_stopped_goes_on(on, tmp_path, model, clips, monkeypatch):
    on(CARD)
    whole = tuned(tmp_path / "whole", model, clips, lora=2, steps=3)
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
    assert farthest(resumed, whole) == 0


def test_a_card_that_is_too_small_for_fine_tuning(on, tmp_path, model, clips, monkeypatch):
    on(CARD)
    monkeypatch.setattr(finetune, "free_memory", lambda device: 0)
    with pytest.raises(InputError, match=r"Fine-tuning takes .* of the card and 0\.0 GB are free"):
        tuned(tmp_path, model, clips, lora=2)


@torch.no_grad()
def test_losses_of_windows_and_of_parts(on):
    """Of two examples with mouths at different places, and of one after the other."""
    numbers = torch.Generator().manual_seed(0)
    nets = Networks.empty(replace(CONFIG, latent_height=12, latent_width=18)).eval()
    empty = empty_batch(nets, 2)
    drawn = {
        name: torch.randn(value.shape, generator=numbers)
        for name, value in vars(empty).items()
        if value.is_floating_point()
    }
    lips = torch.zeros(2, 12, 18)
    lips[0, 9:11, 3:7] = lips[1, 5:6, 14:17] = 0.5
    batch = replace(empty, **drawn | {"lips": lips}, timesteps=torch.tensor([999, 300]))
    made = []
    for device in (CPU, CARD):
        on(device)
        nets, batch = nets.to(device), batch.to(device)
        window = window_on(batch.lips, nets.config, np.random.default_rng(0))
        found = [denoiser.losses(nets, batch, window)]
        found += [denoiser.losses(nets, part) for part in (batch, *batch.split(1))]
        made.append([losses["v"].item() for losses in found])
    assert made[1] == pytest.approx(made[0], rel=1e-4)


def both(on, train) -> list[dict[str, Tensor]]:
    """The weights that a training leaves on the CPU and on the card."""
    made = []
    for device in (CPU, CARD):
        on(device)
        made.append(train(device.type).state_dict())
    return made


def test_the_autoencoder_is_trained(on, tmp_path, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (2, 9, 32, 48, 3), np.uint8)
    boxes = np.tile(np.array([20.0, 16.0, 28.0, 24.0]), (2, 9, 1))
    monkeypatch.setattr(autoencoder, "pictures", lambda *_: (frames, boxes))
    kinds = ((1, 9, 32, 48),)
    stage = autoencoder.Stage("short", kinds, kinds, 0.5, SETTINGS, encoder=True)
    made = both(on, lambda name: autoencoder.train(tmp_path / name, (stage,)))
    assert farthest(*made) < 1e-3


def test_the_speech_encoder_is_trained(on, tmp_path, monkeypatch):
    numbers = np.random.default_rng(0)
    frames = speech_encoder.FRAMES
    pool = numbers.normal(0, 0.1, (2, frames * 640)), numbers.random((2, frames, 3), np.float32)
    monkeypatch.setattr(speech_encoder, "sounds", lambda *_: pool)
    monkeypatch.setattr(speech_encoder, "BATCH", 1)
    settings = replace(SETTINGS, matrix_rate=None, rate=1e-4)
    made = both(on, lambda name: speech_encoder.train(tmp_path / name, settings))
    assert farthest(*made) < 1e-3


def shot() -> Shot:
    torch.manual_seed(1)
    return Shot(
        frames=torch.rand(3, 49, 32, 48) * 2 - 1,
        portraits=torch.rand(2, 3, 32, 48) * 2 - 1,
        regions=torch.ones(2, 32, 48),
        waveform=torch.randn(98 * 640),
        start=20,
        face=torch.zeros(512),
        lips=torch.ones(32, 48),
    )


def test_shots_are_encoded(on, monkeypatch):
    """To the same numbers, with speech that is long enough to lie in a file."""
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


class Twice:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Shot:
        return shot()

    def title(self, index: int) -> str:
        return f"shot {index}"


def test_the_encoders_leave_the_card(on, tmp_path):
    model = builtin.load()
    on(CARD)
    made = examples.prepare(tmp_path, Twice(), model.vae, model.speech_encoder)
    assert [file.exists() for file in made.files] == [True, True]
    assert {model.vae.device.type, model.speech_encoder.device.type} == {"cpu"}


def test_videos_are_measured(monkeypatch):
    """An identity and latents are encoded on the card, and bytes come from there."""
    model, (index, heard) = builtin.load().placed(CARD), next(talks(frames=NEW_FRAMES))
    grey = torch.full((NEW_FRAMES, 2, 2, 3), 0.5, device=CARD)

    def decoded(vae, latents, count: int) -> Tensor:
        assert latents.device == CARD
        return grey

    def segments(model, identity, *_, **options):
        assert {tokens.device.type for tokens in identity.features} == {"cpu"}  # where it rests
        yield SimpleNamespace(frames=grey)

    monkeypatch.setattr(measure, "FRAMES", NEW_FRAMES)
    monkeypatch.setattr(measure, "decode_images", decoded)
    monkeypatch.setattr(measure, "animate", segments)
    case = CASES["no reference"]
    for video in (
        measure.animated(model, case, index, heard),
        measure.reconstructed(model, index, heard),
    ):
        assert np.array_equal(next(iter(video)), np.full((2, 2, 3), 128, np.uint8))
