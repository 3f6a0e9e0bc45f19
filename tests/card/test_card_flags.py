"""The flags of ComfyUI that matter most: a clip is made with each, and it is the same clip."""

import pytest

from benchmarks.comfyui_flags import BARS, Clip, clips

FLAGS = (
    "--lowvram",
    "--novram",
    "--cpu-vae",
    "--bf16-unet",
    "--fp8_e4m3fn-unet",
    "--cache-none",
    "--use-quad-cross-attention",
)


@pytest.fixture(scope="module")
def made() -> dict[str, Clip | str]:
    """Two segments of a small model, with each of the flags and without any."""
    flags = ["", *FLAGS]
    return dict(zip(flags, clips(flags, seconds=1.96, steps=1, small=True), strict=True))


@pytest.mark.parametrize("flag", FLAGS)
def test_a_clip_is_made_and_the_same(made, flag):
    assert not isinstance(made[flag], str), made[flag]
    assert made[flag].frames.shape == (49, 64, 96, 3)
    assert max(made[flag].change(made[""])) < BARS[flag]
