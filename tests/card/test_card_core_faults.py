"""The pretended card finds what was forgotten for a card: a device, a move, a wait."""

from contextlib import suppress
from copy import deepcopy
from types import SimpleNamespace

import npu
import pytest
import torch
from npu import CARD

from hallo3_core.animate import ModelAnimator
from hallo3_core.errors import InputError
from hallo3_core.media.encoding import Encoding
from hallo3_core.memory import streaming
from hallo3_core.memory.placement import Placement
from hallo3_core.memory.plan import GB, plan_memory
from hallo3_core.memory.streaming import Buffer
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import Identity, encode_portrait
from hallo3_core.speech.encode import Speech
from small_model import changed

TWO_DEVICES = "on the same device"


@pytest.fixture(scope="module")
def identity(recorded_model) -> Identity:
    picture = torch.rand(3, 40, 70, generator=torch.Generator().manual_seed(1))
    networks = recorded_model.vae, recorded_model.reference_network
    return encode_portrait(*networks, picture, None, SeededNoise(0))


@pytest.fixture
def animator(recorded_model, identity):
    """Makes a segment on the card. Its speech is noise."""
    numbers = torch.Generator().manual_seed(2)
    speech = Speech(torch.randn(49, 12, recorded_model.config.audio_channels, generator=numbers), 9)

    def made(**change) -> ModelAnimator:
        plan = plan_memory(recorded_model.config, recorded_model.vae, "fp32", 8 * GB)
        model = deepcopy(recorded_model).placed(CARD, changed(plan, **change))
        return ModelAnimator(model, identity, speech, SeededNoise(0), steps=2)

    return made


def sampled(animator: ModelAnimator) -> torch.Tensor:
    return animator.sample(0, animator.identity.motion).cpu()


def test_a_tensor_that_stays_in_main_memory(animator, monkeypatch):
    maker = animator()
    monkeypatch.setattr(maker.predictor, "to_device", lambda tensor: tensor)
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        sampled(maker)


def test_keys_and_values_that_are_not_brought(animator, monkeypatch):
    monkeypatch.setattr(Placement, "bring", lambda self, keys_values: list(keys_values))
    sampled(animator(in_turn=False))
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        sampled(animator(in_turn=True))


def test_a_network_that_is_not_brought(animator):
    """Its weights stay in main memory, like other networks that take turns."""
    maker = animator(in_turn=True)
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        maker.model.vae.encode(torch.zeros(1, 3, 1, 32, 48, device=CARD))


def test_pictures_that_do_not_leave_the_card(monkeypatch):
    frames = torch.zeros(2, 32, 48, 3, device=CARD)
    assert Encoding().encode(frames)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: tensor)
    with pytest.raises(TypeError, match="numpy"):
        Encoding().encode(frames)


LAYERS_ONE_BY_ONE = {"in_turn": True, "rows": 1, "streamed": 2}


def test_layers_that_come_on_a_side_stream(animator):
    """The numbers are the same, and less memory of the card is used."""
    with npu.peak() as whole:
        expected = sampled(animator(in_turn=True, rows=1))
    with npu.peak() as streamed:
        found = sampled(animator(**LAYERS_ONE_BY_ONE))
    assert torch.equal(found, expected)
    layers = sum(value.nbytes for value in animator().model.denoiser.layers.parameters())
    assert whole.bytes - streamed.bytes > 0.5 * layers


class Careless(Buffer):
    """A buffer on which the device never waits."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        event = self.arrived
        self.arrived = SimpleNamespace(
            record=event.record, synchronize=event.synchronize, wait=lambda stream: None
        )


def test_a_wait_that_is_forgotten(animator, monkeypatch):
    """A matrix is used before its copy has ended."""
    expected = sampled(animator(**LAYERS_ONE_BY_ONE))
    monkeypatch.setattr(streaming, "Buffer", Careless)
    with suppress(InputError):  # the old content of that memory may be NaN
        found = sampled(animator(**LAYERS_ONE_BY_ONE))
        assert not (found - expected).abs().max() < 0.1
