"""All tests here run on pretended graphics cards, in a process of their own."""

import importlib
import shutil
import sys
import warnings
from pathlib import Path

import npu
import pytest
from comfyui import Host
from direct import Direct

from hallo3_core.network.layers import rotary_table
from run import find_comfyui

ALONE = "these tests make a kind of device: run them by themselves, with `pytest tests/card`"
COMPILER = "NO C++ COMPILER WAS FOUND: THE TESTS ON A PRETENDED CARD ARE SKIPPED"


def pytest_collection_modifyitems(items):
    here = [item for item in items if Path(item.fspath).parent == Path(__file__).parent]
    reason = ALONE if len(here) < len(items) else "" if shutil.which("c++") else COMPILER
    if reason:
        warnings.warn(reason, stacklevel=1)
        for item in here:
            item.add_marker(pytest.mark.skip(reason=reason))
    elif here:
        npu.install()


@pytest.fixture(scope="session")
def host(tmp_path_factory) -> Host:
    """A ComfyUI on the first card."""
    comfyui = find_comfyui()
    if comfyui is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH")
    return npu_host(comfyui, tmp_path_factory.mktemp("comfyui") / "base")


@pytest.fixture(scope="session")
def direct(host) -> Direct:
    """A MODEL and a VAE on the first card, in float32."""
    with pytest.MonkeyPatch.context() as patch:
        load_as_float32(patch)
        return Direct(host)


@pytest.fixture(scope="module")
def float32(host) -> None:
    """Networks are loaded in float32 in this module. Networks loaded before are not reused."""
    host.executor.reset()
    with pytest.MonkeyPatch.context() as patch:
        load_as_float32(patch)
        yield
    host.executor.reset()


def load_as_float32(patch: pytest.MonkeyPatch) -> None:
    args = importlib.import_module("comfy.cli_args").args
    patch.setattr(args, "fp32_unet", True)
    patch.setattr(args, "fp32_vae", True)


def npu_host(comfyui: Path, base: Path, **flags) -> Host:
    """A ComfyUI started with these flags. They have the names of `comfy.cli_args`."""
    sys.path.insert(0, str(comfyui))
    with npu.found_by_comfyui():
        vars(importlib.import_module("comfy.cli_args").args).update(flags)
        importlib.import_module("comfy.model_management")
    return Host(comfyui, base, cpu=False, **flags)


@pytest.fixture(autouse=True)
def clean_cards():
    """Remove what a test may leave: a memory limit, and a rotary table kept for the next call."""
    yield
    rotary_table.cache_clear()
    for card in range(npu.accelerator().CARDS):
        npu.accelerator().set_limit(card, npu.UNLIMITED)
