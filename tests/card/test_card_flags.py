"""The flags of ComfyUI that matter most: a clip is made with each, and it is the same clip."""

import pytest

from benchmarks.comfyui_flags import EXACT, Clip, clips

BARS = {
    f"{EXACT} --lowvram": 1e-3,
    f"{EXACT} --novram": 1e-3,
    f"{EXACT} --cpu-vae": 1e-3,
    f"{EXACT} --cache-none": 1e-3,
    f"{EXACT} --use-quad-cross-attention": 1e-3,
    "--bf16-unet": 0.1,
    "--fp8_e4m3fn-unet": 0.2,
}
"""How far latents and frames may be off."""


@pytest.fixture(scope="module")
def made() -> dict[str, Clip | str]:
    """Two segments with each of the flags, and in float32 without any other."""
    flags = [EXACT, *BARS]
    return dict(zip(flags, clips(flags, seconds=1.96, steps=1, small_vae=True), strict=True))


@pytest.mark.parametrize("flags", BARS)
def test_a_clip_is_made_and_the_same(made, flags):
    assert not isinstance(made[flags], str), made[flags]
    assert made[flags].frames.shape == (49, 128, 192, 3)
    assert max(made[flags].change(made[EXACT])) < BARS[flags]
