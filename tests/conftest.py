from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import parity
from hallo3_core.model.hallo3 import Hallo3


@pytest.fixture(autouse=True)
def empty_store(monkeypatch, tmp_path):
    """Every test begins without finished segments."""
    monkeypatch.setenv("HALLO3_STORE", str(tmp_path / "segments"))


@pytest.fixture(scope="session")
def recorded_model() -> Hallo3:
    """The tiny model that the published program's numbers were recorded with, float32."""
    return parity.load_model(parity.FIXTURES, torch.float32)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A landscape picture of a gradient, 90 x 60 pixels."""
    rows, columns = np.mgrid[0:60, 0:90]
    pixels = np.stack([columns * 2, rows * 4, columns + rows], axis=2).astype(np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path
