"""Streamed layers: the same numbers, few copies, and no read before the copy has ended."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hallo3_core.memory import streaming
from hallo3_core.memory.streaming import Buffer, Streamer, tensors_of
from hallo3_core.network.config import LATENT_FRAMES, Hallo3Config
from hallo3_core.network.transformer import Conditions, Denoiser
from hallo3_core.quantization.layouts import LAYOUTS
from hallo3_core.quantization.linear import QuantizedLinear

MATRICES_IN_A_CALL = 9
"""The matrices of a layer in a call. Two more compute keys and values of face and audio before."""


@pytest.fixture
def denoiser(recorded_model) -> Denoiser:
    return deepcopy(recorded_model.denoiser)


@pytest.fixture
def fetched(monkeypatch) -> Iterator[list]:
    """Every matrix that is copied to the device, in this order."""
    modules = []
    fetch = Streamer._fetch

    def count(self, module):
        modules.append(module)
        fetch(self, module)

    monkeypatch.setattr(Streamer, "_fetch", count)
    return modules


@torch.no_grad()
def conditions_of(denoiser: Denoiser) -> Conditions:
    config, numbers = denoiser.config, Numbers()
    tokens = numbers(1, config.frame_tokens, config.width)
    return denoiser.conditions(
        numbers(1, config.text_tokens, config.text_width),
        numbers(*latents_shape(config)),
        denoiser.reference_keys_values([tokens] * config.layers),
        denoiser.face_keys_values(numbers(1, config.face_channels)),
        numbers(1, LATENT_FRAMES, config.audio_tokens, config.audio_width),
    )


@torch.no_grad()
def call(denoiser: Denoiser, conditions: Conditions) -> torch.Tensor:
    return denoiser(Numbers()(*latents_shape(denoiser.config)), torch.full((1,), 500.0), conditions)


def latents_shape(config: Hallo3Config) -> tuple[int, ...]:
    return 1, config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width


class Numbers:
    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)


def test_streamed_layers_compute_the_same_to_the_bit(denoiser):
    conditions = conditions_of(denoiser)
    expected = call(denoiser, conditions)
    places = [value.data_ptr() for value in denoiser.parameters()]
    streamer = Streamer(denoiser.layers, torch.device("cpu"))
    with streamer.open():
        found = conditions_of(denoiser)
        results = [call(denoiser, found) for _ in range(2)]
    for kind in ("reference", "face", "audio"):
        keys_values = (tree_leaves(getattr(made, kind)) for made in (found, conditions))
        assert all(map(torch.equal, *keys_values))
    assert all(torch.equal(result, expected) for result in results)
    assert [value.data_ptr() for value in denoiser.parameters()] == places
    assert streamer.buffers == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_quantised_matrix_comes_with_its_scales(name):
    torch.manual_seed(0)
    layer = QuantizedLinear.of(torch.nn.Linear(64, 128), LAYOUTS[name]).requires_grad_(False)
    x = torch.randn(2, 64)
    expected = layer(x)
    with Streamer([layer], torch.device("cpu")).open():
        assert torch.equal(layer(x), expected)


def test_a_layer_takes_the_room_of_two_matrices(denoiser):
    """This does not depend on the number of layers. All but the norms of a layer is streamed."""
    streamer = Streamer(denoiser.layers, torch.device("cpu"))
    layers = list(denoiser.layers.parameters())
    away = sum(value.nbytes for module in streamer.resting for value in module.parameters())
    assert 0.99 < away / sum(value.nbytes for value in layers) < 1
    largest = denoiser.layers[0].mlp.up
    with streamer.open():
        rooms = [buffer.there.nbytes for buffer in streamer.buffers]
    assert len(rooms) == 2
    for room in rooms:
        assert 1 <= room / sum(value.nbytes for value in tensors_of(largest).values()) < 1.05


def test_every_matrix_is_brought_once_a_call_and_ahead_of_it(denoiser, fetched):
    """This holds when the order is known.

    In the very first call it is not: the calls before it computed keys and values.
    """
    streamer = Streamer(denoiser.layers, torch.device("cpu"))
    needed = MATRICES_IN_A_CALL * len(denoiser.layers)
    late = []

    def watch(module, inputs):
        late.append(not streamer._is_here(module))

    for module in streamer.resting:
        module.register_forward_pre_hook(watch, prepend=True)
    with streamer.open():
        conditions = conditions_of(denoiser)
        for _ in range(2):
            call(denoiser, conditions)
        fetched.clear(), late.clear()
        call(denoiser, conditions)
    assert late == [False] * needed
    assert Counter(Counter(fetched).values()) == {1: needed}


class Streams(TorchDispatchMode):
    """Replaces torch.cuda, and records the order in which a device uses the buffers.

    All work is done at once. Each use is noted together with the work that is certain to come
    before it: earlier work in its stream, work that its stream waits for, and work that the program
    had waited for when it started the use. If one of two uses of the same memory writes, one must
    come before the other.
    """

    def __init__(self):
        super().__init__()
        self.after = {"program": Counter(), "compute": Counter(), "side": Counter()}
        self.active = "compute"
        self.uses = defaultdict(list)
        self.copies_beside_work = 0

    def Stream(self, device):
        return "side"

    def Event(self):
        return Event(self)

    def current_stream(self, device):
        return "compute"

    @contextmanager
    def stream(self, name):
        self.active = name
        yield
        self.active = "compute"

    def buffer(self, *arguments):
        """A buffer whose memory the compute stream used for other work, and may still use."""
        made = Buffer(*arguments)
        self.use("compute", made.there, writes=True)
        return made

    def use(self, who: str, tensor: torch.Tensor, writes: bool) -> None:
        if who != "program":
            self.after[who] |= self.after["program"]
        memory = self.uses[tensor.untyped_storage()._cdata]
        for other, time, wrote in memory:
            assert self.after[who][other] >= time or not (writes or wrote), f"{who} before {other}"
        beside = self.after["side"]["compute"] < self.after["compute"]["compute"]
        self.copies_beside_work += who == "side" and writes and beside
        self.after[who][who] += 1
        memory.append((who, self.after[who][who], writes))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        copies = function is torch.ops.aten.copy_.default
        for tensor in tree_leaves(args):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata in self.memory:
                on_host = self.memory[tensor.untyped_storage()._cdata] == "host"
                who = "program" if on_host and self.active == "compute" else self.active
                self.use(who, tensor, writes=copies and tensor is args[0])
        return function(*args, **(kwargs or {}))


class Event:
    def __init__(self, streams: Streams):
        self.streams, self.after = streams, Counter()

    def record(self, stream):
        self.after = self.streams.after[stream].copy()

    def wait(self, stream):
        self.streams.after[stream] |= self.after

    def synchronize(self):
        self.streams.after["program"] |= self.after


def test_nothing_is_read_before_it_is_there_or_overwritten_while_it_is_read(denoiser, monkeypatch):
    """This holds on a device that computes and copies at the same time, however long each takes."""
    streamer = Streamer(denoiser.layers, torch.device("cpu"))
    streamer.backend = streams = Streams()
    monkeypatch.setattr(streaming, "Buffer", streams.buffer)
    with streams:
        with streamer.open():
            streams.memory = {
                part.untyped_storage()._cdata: place
                for buffer in streamer.buffers
                for place, part in (("host", buffer.host), ("there", buffer.there))
            }
            conditions = conditions_of(denoiser)
            for _ in range(2):
                call(denoiser, conditions)
            streams.copies_beside_work = 0
            call(denoiser, conditions)
            memory = list(streams.memory)
        done = streams.after["program"]
    copies = [use for storage in memory for use in streams.uses[storage] if use[0] == "side"]
    assert streams.copies_beside_work == MATRICES_IN_A_CALL * len(denoiser.layers)
    assert all(done["side"] >= time for _, time, _ in copies)
