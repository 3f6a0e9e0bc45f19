from pathlib import Path

import pytest
import torch

from hallo3_core.media.video import VideoWriter
from hallo3_core.network.config import SAMPLE_RATE
from hallo3_core.sound.sound import Sound
from training.world.clips import clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A folder of one video: 60 frames of a drawing that speaks."""
    folder = tmp_path_factory.mktemp("clips")
    made = clip("train", 1, (160, 160), 60)
    sound = Sound(torch.from_numpy(made.waveform)[None], SAMPLE_RATE)
    with VideoWriter(folder / "one.mp4", 160, 160, sound) as video:
        video.write(torch.from_numpy(made.frames) / 255)
    return folder
