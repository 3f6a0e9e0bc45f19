"""The pretended cards: what they refuse, what they count, and when they copy."""

import npu
import pytest
import torch
from npu import CARD
from torch import nn
from torch.nn import functional as F

MIB = 2**20


def test_two_devices_do_not_mix():
    here, there = torch.ones(4), torch.ones(4, device=CARD)
    other = torch.ones(4, device="npu:1")
    images, kernel = torch.ones(1, 3, 8, 8, device=CARD), torch.ones(2, 3, 3, 3)
    # a tensor without dimensions counts as a number
    assert (there + torch.tensor(2.0)).sum().item() == 12
    for mixed in (
        lambda: there + here,
        lambda: there + other,
        lambda: torch.cat([there, here]),
        lambda: F.conv2d(images, kernel),
        lambda: there.view(2, 2) @ here.view(2, 2),
    ):
        with pytest.raises(RuntimeError, match="on the same device"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


def test_what_is_learnt_is_there():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, 8, 8, generator=generator)
    layer = nn.Conv2d(3, 2, 3)
    layer(images).square().sum().backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    layer.to(CARD)(images.to(CARD)).square().sum().backward()
    assert layer.weight.grad.device == CARD
    assert torch.allclose(layer.weight.grad.cpu(), expected, atol=1e-4)


def test_memory_is_counted_and_can_run_out():
    with npu.peak() as taken:
        kept = torch.zeros(MIB, dtype=torch.uint8, device=CARD)
        del kept
        torch.zeros(2 * MIB, dtype=torch.uint8, device=CARD)
    assert taken.bytes == 2 * MIB
    free, _ = torch.npu.mem_get_info(CARD)
    with npu.limited(torch.npu.memory_allocated(CARD) + MIB):
        torch.zeros(MIB, dtype=torch.uint8, device=CARD)
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(MIB + 1, dtype=torch.uint8, device=CARD)
    assert torch.npu.mem_get_info(CARD)[0] == free


def test_a_copy_on_a_side_stream_is_there_when_somebody_has_waited():
    pinned, there = torch.ones(4).pin_memory(), torch.zeros(4, device=CARD)
    side = torch.npu.Stream(CARD)
    with torch.npu.stream(side):
        there.copy_(pinned, non_blocking=True)
    assert there.sum().item() == 0
    torch.npu.current_stream(CARD).wait_event(side.record_event())
    assert there.sum().item() == 4


def test_a_part_of_a_tensor_is_changed_in_its_place():
    """For example a frame of a video. In memory it lies between frames of other channels."""
    there, frame = torch.ones(1, 2, 3, 2, device=CARD), torch.full((1, 2, 2), 3.0, device=CARD)
    there[:, :, 1] *= frame
    assert there.cpu()[:, :, 1].eq(3).all()
    assert there.sum().item() == 8 + 3 * 4


def test_complex_numbers_that_are_conjugated():
    there = torch.tensor([1 + 2j, 3 - 1j], device=CARD)
    assert torch.equal(there.conj().cpu(), torch.tensor([1 - 2j, 3 + 1j]))
    assert (there * there.conj()).cpu().real.tolist() == [5, 10]
