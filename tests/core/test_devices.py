"""What the command line chooses for a device: the dtype, and what its memory is planned for."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from hallo3_core import cli as command_line
from hallo3_core.cli import animate as animate_command
from hallo3_core.memory import device

CUDA = torch.device("cuda")


@pytest.mark.parametrize(("has_it", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_bfloat16_where_the_card_has_it(monkeypatch, has_it, dtype):
    """A GeForce RTX 3060 has bfloat16. A 2080 emulates it, which does not count."""
    card = SimpleNamespace(
        device=nullcontext,
        is_bf16_supported=lambda including_emulation=True: has_it or including_emulation,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: card)
    assert animate_command.choose_dtype(None, CUDA) == dtype
    assert animate_command.choose_dtype("float32", CUDA) == torch.float32
    assert animate_command.choose_dtype(None, torch.device("cpu")) == torch.float32


def test_a_device_that_cannot_say_is_tried(monkeypatch):
    """For example Apple's. It depends on the version of macOS."""
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert device.has_bfloat16(torch.device("cpu"))

    def refuse(*args, **kwargs):
        raise TypeError("BFloat16 is not supported on MPS")

    monkeypatch.setattr(torch, "ones", refuse)
    assert not device.has_bfloat16(torch.device("mps"))


@pytest.fixture
def tf32():
    """TF32 is allowed. torch allows it for convolutions by default."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


def test_float32_is_not_rounded_to_tf32(tf32):
    options = command_line.parse(["animate"])
    animate_command.load_model(options, torch.device("cpu"), torch.float32)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float16, "fp16"), (torch.bfloat16, "bf16"), (torch.float32, "fp32")],
)
def test_the_plan_is_of_the_dtype(monkeypatch, dtype, kind):
    planned = []

    def plan_for(path, kind, free, offload, voices):
        planned.append((kind, voices))
        raise KeyboardInterrupt

    monkeypatch.setattr(animate_command, "plan_for", plan_for)
    options = command_line.parse(["animate", "--model", "somewhere"])
    with pytest.raises(KeyboardInterrupt):
        animate_command.load_model(options, torch.device("cpu"), dtype)
    assert planned == [(kind, 2)]


@pytest.mark.parametrize(
    ("words", "voices"),
    [
        ("", 2),
        ("--speech-strength 0.5", 3),
        ("--prompt smile --text-guidance 2", 3),
        ("--speaker a.png a.wav --speaker b.png b.wav", 4),
        ("--speaker a.png a.wav --speaker b.png b.wav --speaker c.png c.wav", 5),
        ("--turns --speaker a.png a.wav --speaker b.png b.wav --speaker a.png c.wav", 4),
    ],
)
def test_the_command_line_counts_the_voices(words, voices):
    options = command_line.parse(["animate", *words.split()])
    assert animate_command.voices_of(options) == voices
