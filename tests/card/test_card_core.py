"""`animate` on a card, by the command line. It computes the numbers of the CPU in every way.

The model is small and is read from files. Latents, motion and last frames are read from the store.
"""

from collections.abc import Callable
from pathlib import Path

import npu
import pytest
import torch
from npu import CARD
from safetensors.torch import load_file
from torch import Tensor, nn

from hallo3_core import builtin
from hallo3_core import cli as command_line
from hallo3_core.animate import ModelAnimator
from hallo3_core.autoencoder.images import decode_images
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.cli import animate as animate_command
from hallo3_core.errors import InputError
from hallo3_core.media.video import save_sound
from hallo3_core.memory.device import choose_dtype
from hallo3_core.memory.plan import GB
from hallo3_core.model import convert
from hallo3_core.model.finding import TRANSFORMER_FILE
from hallo3_core.store.segment_store import SEGMENT, SegmentStore
from small_model import changed, save_model

SHORT, LONG = 0.3, 2.1
"""Seconds of speech: one segment, and two segments."""
MIB = 2**20
Made = dict[str, Tensor]
"""The tensors that a segment leaves in the store."""


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> dict[float, Path]:
    folder, numbers = tmp_path_factory.mktemp("speech"), torch.Generator().manual_seed(0)
    files = {seconds: folder / f"{seconds}.wav" for seconds in (SHORT, LONG)}
    for seconds, file in files.items():
        save_sound(0.1 * torch.randn(1, int(16_000 * seconds), generator=numbers), 16_000, file)
    return files


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("small model"))


Animate = Callable[..., list[Made]]


@pytest.fixture(scope="module")
def animate(model, speech, tmp_path_factory) -> Animate:
    """Make segments by the command line, and return them as they are in the store.

    A new store is used unless one is given. Without a file, the built-in model is used. `change`
    changes fields of the plan.
    """

    def run(
        *words: str,
        change: dict | None = None,
        device: str = "npu",
        file: Path | None = model,
        store: Path | None = None,
        seconds: float = SHORT,
    ) -> list[Made]:
        folder = tmp_path_factory.mktemp("job")
        store = store or folder / "store"
        given = ["animate", "--speech", speech[seconds], "--steps", 2]
        given += ["--model", file] if file else []
        given += ["--device", device, "--output", folder / "video.mp4", "--quiet", *words]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HALLO3_STORE", str(store))
            if change is not None:
                plan_for = animate_command.plan_for
                patch.setattr(
                    animate_command, "plan_for", lambda *a: changed(plan_for(*a), **change)
                )
            options = command_line.parse([str(word) for word in given])
            assert options.run(options) == 0
        return [load_file(file) for file in SegmentStore(store).files() if file.suffix == SEGMENT]

    return run


@pytest.fixture(scope="module")
def expected(animate) -> list[Made]:
    """The segments of the CPU, in float32."""
    return animate("--dtype", "float32", device="cpu")


def farthest(found: list[Made], expected: list[Made]) -> float:
    """The largest error of all numbers of a segment, relative to their standard deviation."""
    assert len(found) == len(expected)
    errors = []
    for one, other in zip(found, expected, strict=True):
        for name in ("latents", "motion", "last"):
            assert one[name].shape == other[name].shape
            if one[name].numel():
                errors.append((one[name] - other[name]).abs().max() / other[name].std())
    return max(errors).item()


WAYS = {
    "all networks stay": {"in_turn": False, "rows": 1},
    "both branches at once": {"in_turn": False, "rows": 2},
    "in turn": {"in_turn": True, "rows": 1},
    "layers one by one": {"in_turn": True, "rows": 1, "streamed": 2},
    "a layer for both branches": {"in_turn": True, "rows": 2, "streamed": 1},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_numbers_of_the_cpu(animate, expected, way):
    assert farthest(animate("--dtype", "float32", change=way), expected) < 1e-4


def test_a_segment_that_continues_another(animate):
    words = ("--dtype", "float32")
    found = animate(*words, change=WAYS["layers one by one"], seconds=LONG)
    assert len(found) == 2
    assert farthest(found, animate(*words, device="cpu", seconds=LONG)) < 1e-4


@pytest.fixture
def two_threads():
    """On one thread, the sums of the CPU are further from those of the card."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_built_in_model(animate, two_threads):
    words = ("--dtype", "float32", "--steps", "1", "--guidance", "1")
    on_cpu = animate(*words, device="cpu", file=None)
    assert farthest(animate(*words, file=None), on_cpu) < 1e-4


@torch.no_grad()
def test_decoded_in_tiles():
    """This happens if the card has too little memory to decode the whole picture."""
    autoencoder = builtin.load().vae
    latents = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    whole, tiled = (decode_images(autoencoder, latents, 9, tiles) for tiles in (1, 2))
    nn.Module.to(autoencoder, CARD)
    with npu.peak() as peak:
        found = decode_images(autoencoder, latents, 9)
    assert (found - whole).abs().max() < 1e-4
    with npu.limited(torch.npu.memory_allocated() + peak.bytes - MIB):
        found = decode_images(autoencoder, latents, 9)
    assert (found - tiled).abs().max() < 1e-4
    assert (tiled - whole).abs().max() > 1e-2


def test_guidance_over_a_part_of_the_steps(animate):
    words = ("--dtype", "float32", "--guidance-interval", "0", "0.5")
    assert farthest(animate(*words), animate(*words, device="cpu")) < 1e-4


@pytest.mark.parametrize(("dtype", "within"), [("bfloat16", 0.3), ("float16", 0.05)])
def test_half_precision(animate, expected, dtype, within):
    found = animate("--dtype", dtype, change={"in_turn": True, "rows": 2, "streamed": 2})
    assert 1e-4 < farthest(found, expected) < within


def test_bfloat16_is_chosen():
    assert choose_dtype(None, CARD) == torch.bfloat16


@pytest.fixture(scope="module")
def scaled(model, tmp_path_factory) -> Path:
    """The denoiser in fp8, with its companions and the other networks in the same folder."""
    source, folder = model / TRANSFORMER_FILE, tmp_path_factory.mktemp("scaled")
    for file in (source, model / "cogvideox-5b-i2v-sat/vae/3d-vae.pt"):
        kind = "fp8_e4m3fn" if file == source else "bf16"
        convert.convert(convert.plan(file, read_weights(file), kind), folder, lambda done: None)
    (folder / "audio_encoders").mkdir()
    (folder / "audio_encoders" / "wav2vec2-base-960h").symlink_to(
        model / "wav2vec/wav2vec2-base-960h"
    )
    return folder


def test_matrices_in_fp8(animate, scaled):
    """One of two layers stays on the card. The other is streamed together with its scales."""
    words, change = ("--dtype", "float32"), {"in_turn": True, "streamed": 1}
    found = animate(*words, file=scaled, change=change)
    assert farthest(found, animate(*words, device="cpu", file=scaled)) < 1e-4


def test_a_prompt(animate, expected):
    words = ("--dtype", "float32", "--prompt", "a woman speaks")
    on_cpu = animate(*words, device="cpu")
    assert farthest(on_cpu, expected) > 1e-3
    assert farthest(animate(*words), on_cpu) < 1e-4


def test_a_card_with_room_for_one_network_at_a_time(animate, expected, model):
    """The plan follows from the free memory, and the work stays within the plan."""
    together = animate_command.plan_for(model, "fp32", 8 * GB)
    apart = changed(together, in_turn=True)
    assert not together.in_turn
    room = int((together.most + apart.most) / 2)
    assert animate_command.plan_for(model, "fp32", room).in_turn
    with npu.limited(torch.npu.memory_allocated() + room), npu.peak() as peak:
        found = animate("--dtype", "float32")
    assert farthest(found, expected) < 1e-4
    assert peak.bytes < apart.most


def test_a_second_start_takes_segments_from_disk(animate, tmp_path, monkeypatch, capsys):
    made = animate(store=tmp_path, seconds=LONG)

    def sample(*_):
        raise AssertionError("a segment was sampled again")

    monkeypatch.setattr(ModelAnimator, "sample", sample)
    again = animate(store=tmp_path, seconds=LONG)
    assert "2 of 2 segments were kept from an earlier run" in capsys.readouterr().out
    assert farthest(again, made) == 0


def test_without_a_store(animate, tmp_path, capsys):
    """The video is the same."""
    videos = []
    for words in ((), ("--no-store",)):
        store = tmp_path / "store" / str(len(words))
        made = animate(*words, store=store)
        assert len(made) == (0 if words else 1)
        videos.append(Path(capsys.readouterr().out.split(": ")[0]))
    assert videos[0].read_bytes() == videos[1].read_bytes()


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (
            "_sample",
            "to sample segment 0: close other programs, use quantised weights, "
            "or use --device cpu.",
        ),
        (
            "decode",
            "to decode segment 0: .* Start again: the segment is then decoded without sampling.",
        ),
    ],
)
def test_out_of_memory_is_one_sentence(animate, monkeypatch, work, says):
    """Another program takes the memory that was free when the plan was made."""
    do = getattr(ModelAnimator, work)

    def in_little_memory(*arguments):
        with npu.limited(torch.npu.memory_allocated() + MIB // 8):
            return do(*arguments)

    monkeypatch.setattr(ModelAnimator, work, in_little_memory)
    with pytest.raises(InputError, match=f"There is not enough memory {says}") as error:
        animate("--dtype", "float32")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "says"), [("npu:2", "There is no card 2"), ("cuda", "")])
def test_a_card_that_is_not_there(animate, name, says):
    with pytest.raises(InputError, match=f"The device {name} cannot be used .*{says}.*: try cpu"):
        animate(device=name)


def test_the_second_card(animate, expected):
    with npu.limited(0), npu.peak(1) as peak:
        assert farthest(animate("--dtype", "float32", device="npu:1"), expected) < 1e-4
    assert peak.bytes > MIB
