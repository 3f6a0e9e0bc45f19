"""A simulated graphics card: its tensors have a shape, a dtype and a device, but no contents.

They are torch's fake tensors. Operations compute shapes, dtypes and devices only, and refuse
tensors of two devices, as on a card. For functions that torch does not have without a card, there
are stand-ins here. So the core runs without changes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock
from weakref import finalize

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hallo3_core.network.layers import rotary_table
from hallo3_core.sampling.schedule import denoiser_alphas

CARD = torch.device("cuda", 0)
STREAMS = ("Event", "Stream", "current_stream", "stream")
"""The parts of `torch.cuda` that streamed copies need. Those of `torch.cpu` do nothing."""


class FakeCard(TorchDispatchMode):
    """Inside this context every tensor is fake, and the bytes of those on `CARD` are counted.

    `stages` has the peak bytes of each `stage`.
    """

    def __init__(self):
        super().__init__()
        self.alive: set[int] = set()
        self.bytes = 0
        self.open: list[str] = []
        self.stages: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the peak bytes inside this context."""
        self.open.append(name)
        self._note()
        try:
            yield
        finally:
            self.open.remove(name)

    def __enter__(self) -> "FakeCard":
        denoiser_alphas()  # cached before, because cached tensors must not be fake
        with ExitStack() as stack:
            stack.callback(rotary_table.cache_clear)
            rotary_table.cache_clear()
            stack.enter_context(mock.patch("torch.utils.swap_tensors", take_place))
            for name in STREAMS:
                stack.enter_context(mock.patch.object(torch.cuda, name, getattr(torch.cpu, name)))
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(StandIns())
            super().__enter__()
            self.left = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self.left.close()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            return True  # the answer to: are all numbers finite?
        if function is torch.ops.aten.convolution.default:
            require_one_device(args[:3])  # torch checks all other operations
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device == CARD:
                self._see(tensor.untyped_storage())
        self._note()
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.alive:
            self.alive.add(storage._cdata)
            self.bytes += storage.nbytes()
            finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, storage: int, size: int) -> None:
        self.alive.remove(storage)
        self.bytes -= size

    def _note(self) -> None:
        for name in self.open:
            self.stages[name] = max(self.stages.get(name, 0), self.bytes)


class StandIns(TorchFunctionMode):
    """Operations that fake tensors do not do as tensors on a card."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention and args[0].device == CARD:
            return attention(*args[:3])
        if function == Tensor.data.__set__:
            return put(*args)
        return function(*args, **(kwargs or {}))


def require_one_device(tensors: tuple[Tensor | None, ...]) -> None:
    """Raise `RuntimeError` if the tensors are on different devices."""
    devices = {str(tensor.device) for tensor in tensors if tensor is not None}
    if len(devices) > 1:
        raise RuntimeError(f"A convolution of tensors on two different devices {devices}")


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The attention kernel that torch uses on a card.

    Without a card, torch would choose one that keeps all scores.
    """
    if query.dtype == torch.float32:
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        return kernel(query, key, value, None, False)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


def put(tensor: FakeTensor, data: FakeTensor) -> None:
    """Set `tensor.data`. Without this, the fake tensor would keep its device."""
    Tensor.data.__set__(tensor, data)
    tensor.fake_device = data.fake_device


def take_place(parameter: Tensor, other: Tensor) -> None:
    """Move a parameter with its network. A fake tensor cannot be swapped: others refer to it."""
    parameter.data = other


def fill(network: nn.Module) -> None:
    """Give fake weights in main memory to a network without weights, for inference."""
    state = network.state_dict()
    weights = {name: torch.empty_like(value, device="cpu") for name, value in state.items()}
    network.load_state_dict(weights, assign=True)
    network.eval().requires_grad_(False)
