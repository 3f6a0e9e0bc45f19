from pathlib import Path

import pytest

from training.world.clips import clip
from training.world.film import film


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A folder of one video: 60 frames of a drawing that speaks."""
    folder = tmp_path_factory.mktemp("clips")
    film(clip("train", 1, (160, 160), 60), folder / "one.mp4")
    return folder
