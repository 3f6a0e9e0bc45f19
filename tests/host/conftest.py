import importlib
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from comfyui import Host, Parts, build
from quick import decode_quickly

from hallo3_core import builtin
from run import find_comfyui


def pytest_collection_modifyitems(items):
    if find_comfyui() is None:
        warnings.warn("NO ComfyUI WAS FOUND: THE HOST TESTS ARE SKIPPED", stacklevel=1)
        for item in items:
            if Path(item.fspath).parent.name == "host":
                item.add_marker(pytest.mark.skip(reason="no ComfyUI: set COMFYUI_PATH"))


@pytest.fixture(scope="session")
def host(tmp_path_factory) -> Host:
    return Host(find_comfyui(), tmp_path_factory.mktemp("comfyui") / "base")


@pytest.fixture
def parts() -> Parts:
    """The built-in model, a landscape portrait and 2.5 s of noise: two segments."""
    return build(seconds=2.5)


@pytest.fixture
def calls(host, monkeypatch) -> Counter:
    """Counts calls of the denoiser, and with `quick_decoding` decoded segments."""
    counted = Counter()
    nodes = host.nodes.NODE_CLASS_MAPPINGS["Hallo3LoadDiT"].__module__.rpartition(".")[0]
    kind = sys.modules[f"{nodes}.host.model"].HostDenoiser
    forward = kind.forward

    def count(self, x, *inputs, **others):
        counted["sampled"] += len(x)
        return forward(self, x, *inputs, **others)

    monkeypatch.setattr(kind, "forward", count)
    return counted


@pytest.fixture
def quick_decoding(host, calls, monkeypatch) -> None:
    decode_quickly(host, monkeypatch, calls)


@pytest.fixture
def small_stock_vae(host, monkeypatch) -> None:
    """ComfyUI's own CogVideoX VAE, as large as the built-in one."""
    stock = importlib.import_module("comfy.ldm.cogvideo.vae")

    class Small(stock.AutoencoderKLCogVideoX):
        def __init__(self, latent_channels):
            widths, groups = builtin.VAE["block_out_channels"], builtin.VAE["norm_num_groups"]
            sizes = {"block_out_channels": widths, "layers_per_block": 1, "groups": groups}
            super().__init__(latent_channels=latent_channels, **sizes)

    monkeypatch.setattr(stock, "AutoencoderKLCogVideoX", Small)


@pytest.fixture
def said(monkeypatch) -> dict[str, str]:
    """The text under each node at the end."""
    texts = {}

    def send_progress_text(text: str, node: str) -> None:
        texts[node] = text

    server = SimpleNamespace(send_progress_text=send_progress_text)
    monkeypatch.setattr(sys.modules["server"].PromptServer, "instance", server, raising=False)
    return texts
