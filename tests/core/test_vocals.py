"""Isolating vocals, with networks that return their input."""

import pytest
import torch
from onnx import helper

from hallo3_core.errors import InputError
from hallo3_core.speech import vocals
from hallo3_core.speech.vocals import VocalIsolator
from onnx_files import mdx_net, save, tensor


def noise(channels: int, samples: int) -> torch.Tensor:
    return torch.randn(channels, samples, generator=torch.Generator().manual_seed(1)) * 0.1


def decibels(error: torch.Tensor, of: torch.Tensor) -> float:
    return 20 * torch.log10(error.abs().max() / of.abs().max()).item()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return VocalIsolator(mdx_net(tmp_path_factory.mktemp("mdx") / "identity.onnx"))


@pytest.mark.parametrize("seconds", [0.2, 7.3, 20])
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_nothing_is_lost_on_the_way(network, channels, rate, seconds):
    """The whole sound is kept, including its ends and its highest notes."""
    sound = noise(channels, int(rate * seconds))
    found = network(sound, rate)
    assert found.shape == sound.shape
    assert decibels(found - sound, sound) < -80


def test_more_channels_get_the_voice_of_their_mean(network):
    sound = noise(6, 30_000)
    found = network(sound, 44_100)
    assert found.shape == sound.shape
    assert decibels(found - sound.mean(0), sound) < -80


@pytest.mark.parametrize(("bins", "frames", "fft"), [(2048, 128, 6144), (1024, 64, 2048)])
def test_other_sizes_are_read_off_the_file(tmp_path, bins, frames, fft):
    isolate = VocalIsolator(mdx_net(tmp_path / "other.onnx", bins, frames))
    assert (isolate.bins, isolate.frames, isolate.fft) == (bins, frames, fft)
    sound = noise(2, 100_000)
    assert decibels(isolate(sound, 44_100) - sound, sound) < -80


def test_the_published_network_is_made_louder(tmp_path):
    isolate = VocalIsolator(mdx_net(tmp_path / "Kim_Vocal_2.onnx"))
    sound = noise(2, 50_000)
    assert torch.allclose(isolate(sound, 44_100), sound * 1.009, atol=1e-4)


def test_a_network_that_hears_no_voice(tmp_path):
    """Notes above the highest bin of the network do not count as voice, either."""
    isolate = VocalIsolator(mdx_net(tmp_path / "none.onnx", gain=0.0))
    assert isolate(noise(2, 50_000), 44_100).abs().max() < 1e-6


def test_the_network_sees_one_chunk_at_a_time(network, monkeypatch):
    seen = []
    separate = VocalIsolator._separate
    monkeypatch.setattr(
        VocalIsolator,
        "_separate",
        lambda self, chunk: seen.append(chunk.shape) or separate(self, chunk),
    )
    network(noise(2, 44_100 * 20), 44_100)
    assert set(seen) == {(2, 261_120)}
    assert len(seen) == 5


def test_files_that_are_no_mdx_net(tmp_path, monkeypatch):
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(InputError, match="is text, not an MDX-Net"):
        VocalIsolator(tmp_path / "text.onnx")
    shape = (1, 3, 8, 8)
    nodes = [helper.make_node("Identity", ["a"], ["b"])]
    save(tmp_path / "other.onnx", nodes, [tensor("a", *shape)], [tensor("b", *shape)])
    with pytest.raises(InputError, match=r"is not an MDX-Net, .* has the shape \[1, 3, 8, 8\]"):
        VocalIsolator(tmp_path / "other.onnx")
    monkeypatch.setattr(vocals, "installed", lambda: False)
    with pytest.raises(InputError, match="run `pip install onnxruntime`"):
        VocalIsolator(tmp_path / "other.onnx")
