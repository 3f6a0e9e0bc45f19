"""Published files become safetensors, completely or not at all. The results can be loaded."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from hallo3_core import builtin
from hallo3_core.checkpoints import weights_file
from hallo3_core.checkpoints.names import DENOISER, ROTARY_TABLE
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.cli import parse
from hallo3_core.errors import InputError
from hallo3_core.model import convert
from hallo3_core.model.check import check
from hallo3_core.model.download import FILES
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.model.loading import load_transformers, load_vae
from hallo3_core.network.config import LATENT_FRAMES
from hallo3_core.network.transformer import Conditions, Denoiser
from hallo3_core.speech.wav2vec2 import load_speech_encoder
from parity import FIXTURES
from small_model import published

CONFIG = replace(builtin.CONFIG, layers=3, text_width=64)


def ignore(done: int) -> None:
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("published") / "mp_rank_00_model_states.pt"
    torch.save({"module": published(CONFIG)}, path)
    return path


def run(source: Path, folder: Path, dtype: str = "bf16") -> list[Path]:
    plan = convert.plan(source, read_weights(source), dtype)
    return convert.convert(plan, folder, ignore)


@torch.no_grad()
def prediction(denoiser: Denoiser) -> torch.Tensor:
    """The denoiser's prediction of v for noise, in float32."""
    torch.manual_seed(2)
    denoiser.float()
    config = denoiser.config
    shape = (1, config.latent_channels, LATENT_FRAMES, config.latent_height, config.latent_width)
    tokens = torch.randn(1, config.frame_tokens, config.width)
    audio = torch.randn(1, LATENT_FRAMES, config.audio_tokens, config.audio_width)
    conditions = Conditions(
        torch.randn(1, config.text_tokens, config.text_width),
        torch.randn(shape),
        denoiser.reference_keys_values([tokens] * config.layers),
        denoiser.face_keys_values(torch.randn(1, config.face_channels)),
        denoiser.audio_keys_values(audio),
    )
    return denoiser(torch.randn(shape), torch.tensor([500]), conditions)


def test_converted_to_bf16_is_the_same(source, tmp_path):
    dit, reference, audio = run(source, tmp_path)
    assert [file.name for file in (dit, reference, audio)] == [
        "hallo3_dit_bf16.safetensors",
        "hallo3_reference_bf16.safetensors",
        "hallo3_audio_bf16.safetensors",
    ]
    for ours, theirs in zip(load_transformers(dit), load_transformers(source), strict=True):
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)


def test_converted_to_fp8_is_near(source, tmp_path):
    dit, *_ = run(source, tmp_path, "fp8_e4m3fn")
    exact, near = (prediction(load_transformers(file)[0]) for file in (source, dit))
    assert 0 < (near - exact).norm() / exact.norm() < 0.05
    weights = load_file(dit)
    name = f"{DENOISER}transformer.layers.0.mlp.dense_h_to_4h."
    assert weights[name + "weight"].dtype == torch.float8_e4m3fn
    assert weights[name + "weight"].float().abs().max() == torch.finfo(torch.float8_e4m3fn).max
    assert json.loads(bytes(weights[name + "comfy_quant"])) == {"format": "float8_e4m3fn"}
    kinds = {str(value.dtype) for key, value in weights.items() if key.endswith("bias")}
    assert kinds == {"torch.bfloat16"}


def test_every_tensor_of_the_full_model_has_a_place():
    shapes = json.loads((FIXTURES / "full_manifest.json").read_text())
    weights = {
        name: torch.empty(shape, dtype=torch.bfloat16, device="meta")
        for name, shape in shapes.items()
    }
    plan = convert.plan(Path("mp_rank_00_model_states.pt"), weights, "fp8_e4m3fn")
    assert [len(part.names) for part in plan.parts] == [1449, 773, 10]
    assert len(plan.left_out) == 6
    assert {line.split(" -> ")[0] for line in plan.lines()} == shapes.keys()
    size = sum(entry.bytes for entry in plan.parts[0].entries(weights))
    assert size == pytest.approx(7.9e9, rel=0.02)


def test_the_vae_in_the_names_of_diffusers(tmp_path):
    folder = tmp_path / "models"
    (file,) = run(FIXTURES / "vae_weights.safetensors", folder)
    assert file == folder / "vae" / "hallo3_vae_bf16.safetensors"
    ours, theirs = load_vae(file), load_vae(FIXTURES / "vae_weights.safetensors", torch.bfloat16)
    assert load_file(file).keys() == theirs.state_dict().keys()
    for name, value in theirs.float().state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


def test_a_speech_encoder_becomes_one_file(tmp_path):
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config()).save_pretrained(tmp_path / "wav2vec2")
    (source,) = convert.find_sources(tmp_path / "wav2vec2")
    (file,) = run(source, tmp_path / "models")
    ours, theirs = load_speech_encoder(file), load_speech_encoder(tmp_path / "wav2vec2")
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name])


def test_what_was_downloaded_into_comfyui_is_found(tmp_path):
    (tmp_path / "diffusion_models").mkdir()
    places = [file.place(tmp_path) for file in FILES]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    assert convert.find_sources(tmp_path) == places[:3]


def test_it_can_be_started_again(source, tmp_path):
    """Complete files are kept, and missing ones are made."""
    files = run(source, tmp_path)
    before = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    assert run(source, tmp_path) == files
    after = [file.stat().st_mtime_ns for file in files]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def spoiled(source: Path, **changes) -> dict[str, torch.Tensor]:
    weights = dict(read_weights(source))
    names = [name for name in weights if "ref_model" in name and "dense_4h_to_h.weight" in name]
    weights[names[-1]] = changes["value"](weights[names[-1]])
    return weights


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda old: old.clone().index_fill_(0, torch.tensor(3), torch.nan), "NaN or infinite"),
        (lambda old: old[:-1].clone(), "wrong shape"),
        (lambda old: old.to(torch.int8), "integer tensors"),
    ],
)
def test_a_spoiled_tensor_is_refused_before_anything_is_written(source, tmp_path, value, says):
    path = tmp_path / "spoiled.pt"
    torch.save(spoiled(source, value=value), path)
    with pytest.raises(InputError, match=says) as error:
        run(path, tmp_path / "models")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "models").exists()


def test_numbers_too_large_for_fp16(source, tmp_path):
    path = tmp_path / "large.safetensors"
    save_file(spoiled(source, value=lambda old: old * 0 + 1e6), path)
    with pytest.raises(InputError, match="too large for fp16"):
        run(path, tmp_path / "models", "fp16")


def test_a_full_disk_leaves_no_file(source, tmp_path, monkeypatch):
    """It leaves no folder, either."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights_file.os, "fsync", full)
    with pytest.raises(InputError, match="There is no room left for"):
        run(source, tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_stops_leaves_no_file(source, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.txt").write_text("mine")
    monkeypatch.setattr(weights_file.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "models")
    assert [file.name for file in tmp_path.rglob("*")] == ["models", "mine.txt"]


@pytest.mark.parametrize("content", [b"mine", None], ids=["a file of the user's", "another model"])
def test_other_files_are_not_replaced(source, tmp_path, content):
    """They are replaced only with --overwrite.

    Partial files of the user or of a killed job are never replaced.
    """
    dit, reference, audio = run(source, tmp_path)
    if content is None:
        weights = spoiled(source, value=lambda old: old * 2)
        torch.save({"module": weights}, other := tmp_path / source.name)
        files = [dit, reference, audio]
        source = other
    else:
        reference.write_bytes(content)
        dit.unlink()
        files = [reference, audio]
    partial = Path(f"{dit}.partial")
    partial.write_bytes(b"mine, too")
    before = [file.read_bytes() for file in files]
    with pytest.raises(InputError, match=f"{files[0].name} exists already: give --overwrite"):
        run(source, tmp_path)
    assert [file.read_bytes() for file in files] == before
    assert dit.exists() is (content is None)
    plan = convert.plan(source, read_weights(source), "bf16")
    convert.convert(plan, tmp_path, ignore, overwrite=True)
    assert files[0].read_bytes() != before[0]
    assert partial.read_bytes() == b"mine, too"
    load_transformers(dit)


def test_a_conversion_onto_its_source(tmp_path):
    """The user gave a published file the name of a converted one."""
    source = tmp_path / "models" / "vae" / "hallo3_vae_bf16.safetensors"
    source.parent.mkdir(parents=True)
    before = (FIXTURES / "vae_weights.safetensors").read_bytes()
    source.write_bytes(before)
    plan = convert.plan(source, read_weights(source), "bf16")
    with pytest.raises(InputError, match="is the input"):
        convert.convert(plan, tmp_path / "models", ignore, overwrite=True)
    assert source.read_bytes() == before


def test_a_companion_that_is_missing_or_chosen(source, tmp_path):
    dit, reference, _ = run(source, tmp_path)
    with pytest.raises(InputError, match="is the Hallo3 reference network, converted: choose"):
        load_transformers(reference)
    reference.unlink()
    with pytest.raises(InputError, match="The reference network that was made with"):
        load_transformers(dit)


def test_a_converted_folder_is_a_model(source, tmp_path):
    """--model finds all networks in ComfyUI's folders."""
    Wav2Vec2ForCTC(Wav2Vec2Config()).save_pretrained(tmp_path / "wav2vec2")
    wav2vec2 = tmp_path / "wav2vec2" / "model.safetensors"
    for file in (source, FIXTURES / "vae_weights.safetensors", wav2vec2):
        run(file, tmp_path / "models")
    model = Hallo3.from_folder(tmp_path / "models")
    assert model.config == CONFIG
    run(source, tmp_path / "models", "fp8_e4m3fn")
    with pytest.raises(InputError, match="give one file"):
        Hallo3.from_folder(tmp_path / "models")
    dit = tmp_path / "models" / "diffusion_models" / "hallo3_dit_fp8_e4m3fn.safetensors"
    assert Hallo3.from_folder(dit).config == CONFIG


@pytest.mark.parametrize("dtype", ["bf16", "fp8_e4m3fn"])
def test_check_knows_what_was_converted(source, tmp_path, dtype):
    dit, _, audio = run(source, tmp_path, dtype)
    found = [check(file) for file in (source, dit, audio)]
    assert [report.kind for report in found] == [
        "Hallo3 transformers, as published",
        "Hallo3 denoiser, converted",
        "Hallo3 audio projector, converted",
    ]
    assert found[1].sizes == ", 3 layers of width 128, canvas 192 x 128"
    assert [report.extra for report in found] == [[ROTARY_TABLE], [], []]
    assert found[1].parameters + found[2].parameters < found[0].parameters
    assert found[1].dtypes.keys() <= {"bfloat16", "float8_e4m3fn"}


def test_check_refuses_what_will_not_load(source, tmp_path):
    broken = tmp_path / "broken.safetensors"
    save_file(spoiled(source, value=lambda old: old * torch.inf), broken)
    with pytest.raises(InputError, match="NaN or infinite numbers in ref_model"):
        check(broken)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="a folder of diffusers, not weights"):
        check(tmp_path)


def test_the_commands(source, tmp_path, capsys):
    """`test_readme.py` starts them as a user does."""

    def start(*words: object) -> tuple[int, str]:
        options = parse([str(word) for word in words])
        return options.run(options), capsys.readouterr().out

    converting = "convert", source, tmp_path / "models"
    status, printed = start(*converting)
    assert status == 0
    assert "hallo3_audio_bf16.safetensors" in printed.splitlines()[-1]
    assert f"{ROTARY_TABLE} -> left out" in start(*converting, "--list")[1]
    status, printed = start("check", source, FIXTURES / "config.json")
    assert status == 2
    assert "it can be loaded" in printed
    assert "is text, not weights" in printed
