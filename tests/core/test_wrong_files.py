"""Every wrong file is given to every loader. One sentence names the file and what it is."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_convert import CONFIG, ignore, published, run

from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.checkpoints.recognise import describe
from hallo3_core.checkpoints.weights_file import read_metadata
from hallo3_core.errors import InputError
from hallo3_core.evaluation.fid import load_inception
from hallo3_core.evaluation.syncnet import load_syncnet
from hallo3_core.model import convert
from hallo3_core.model.check import check
from hallo3_core.model.finding import COMFYUI_DOWNLOADS, TRANSFORMER_FILE
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.model.loading import load_transformers, load_vae
from hallo3_core.speech.vocals import VocalIsolator
from hallo3_core.speech.wav2vec2 import load_speech_encoder
from hallo3_core.text import TextEncoder
from parity import FIXTURES

WEIGHTS = "model.safetensors"

NO_WEIGHTS = {
    "missing.safetensors": "There is no file",
    "folder.safetensors": "is a folder",
    "diffusers": "is a folder of diffusers",
    "empty.safetensors": "is empty: download it again",
    "text.pt": "is text",
    "index.json": "is text",
    "page.safetensors": "is a web page",
    "pointer.pt": "is a Git LFS pointer",
    "picture.png": "is a picture",
    "photograph.safetensors": "is a picture",
    "film.mp4": "is a sound or a video",
    "model.gguf": "is a GGUF file",
    "network.onnx": "is an ONNX network",
    "packed.gz": "is a compressed archive",
    "files.zip": r"is a ZIP archive \(readme.txt\)",
    "._model.safetensors": "is a metadata file of macOS",
    "zeros.safetensors": "is damaged or cut short",
    "cut.safetensors": "is damaged or cut short",
    "cut.pt": "is damaged or cut short",
    "list.pt": "holds a list, not named weights",
    "object.pt": "contains more than weights",
    "diffusion_pytorch_model-00002-of-00003.safetensors": "is part 2 of 3",
}
"""Files without weights or with missing weights, and the errors for them."""

OTHERS = {
    "wan": ("blocks.0.cross_attn.q.weight", "a Wan video model"),
    "hunyuan": ("txt_in.individual_token_refiner.blocks.0.norm1.weight", "a HunyuanVideo model"),
    "ltx": ("model.diffusion_model.patchify_proj.weight", "an LTX video model"),
    "qwen": ("txt_norm.weight", "a Qwen-Image model"),
    "sd3": ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Diffusion 3"),
    "flux": ("double_blocks.0.img_attn.norm.key_norm.scale", "a Flux model"),
    "sdxl": ("conditioner.embedders.0.transformer.weight", "a Stable Diffusion XL checkpoint"),
    "lora": ("diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight", "a LoRA"),
    "own_lora": ("ref_model.diffusion_model.time_embed.0.lora_A.weight", "a LoRA"),
    "kohya": ("lora_unet_down_blocks_0_attentions_0_proj_in.alpha", "a LoRA"),
    "cogvideox": ("transformer_blocks.0.attn1.to_q.weight", "a CogVideoX transformer"),
    "authors": ("model.diffusion_model.mixins.patch_embed.proj.weight", "in the authors' format"),
    "hallo2": ("denoising_unet.conv_in.weight", "a Hallo or Hallo2 model"),
    "wan_vae": ("decoder.middle.0.residual.0.gamma", "the VAE of Wan or Qwen-Image"),
    "flux_vae": ("decoder.mid.block_1.norm1.weight", "an image VAE"),
    "diffusers_vae": ("decoder.mid_block.resnets.0.norm1.weight", "an image VAE"),
    "ltx_vae": ("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight", "the VAE of LTX"),
    "hunyuan_vae": ("decoder.conv_in.conv.weight", "the VAE of HunyuanVideo"),
    "clip": ("text_model.encoder.layers.0.mlp.fc1.weight", "a CLIP text encoder"),
    "umt5": (
        "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
        "a UMT5 text encoder",
    ),
    "qwen_text": ("model.layers.0.self_attn.q_norm.weight", "a language model"),
    "whisper": ("model.encoder.embed_positions.weight", "a Whisper speech recogniser"),
    "hubert": ("hubert.feature_extractor.conv_layers.0.conv.weight", "a HuBERT speech encoder"),
    "large": ("wav2vec2.encoder.layers.12.attention.k_proj.weight", "a larger speech encoder"),
    "pretrained": ("quantizer.codevectors", "a wav2vec2 that was not fine-tuned"),
    "unknown": ("body.0.weight", r"an unknown network \(1 tensor: body"),
}
"""A tensor name of another model, and the name of this model in errors."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder of wrong files. Hallo3's own files are in it, too."""
    folder = tmp_path_factory.mktemp("wrong")
    contents = {
        "empty.safetensors": b"",
        "text.pt": "Ein Größenvergleich.\n".encode() * 40,
        "index.json": json.dumps({"weight_map": {"a": "b"}}).encode(),
        "page.safetensors": b"\n<!DOCTYPE html><html><body>404</body></html>",
        "pointer.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "film.mp4": b"\0\0\0 ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99),
        "model.gguf": b"GGUF\3\0\0\0" + bytes(99),
        "network.onnx": b"\x08\x07\x12\x07pytorch\x1a\x03" + bytes(99),
        "packed.gz": b"\x1f\x8b\x08\0" + bytes(99),
        "._model.safetensors": b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(99),
        "zeros.safetensors": bytes(5000),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    for name in ("folder.safetensors", "diffusers"):
        (folder / name).mkdir()
    (folder / "diffusers" / "model_index.json").write_text("{}")
    Image.new("RGB", (9, 9)).save(folder / "picture.png")
    Image.new("RGB", (9, 9)).save(folder / "photograph.safetensors", "JPEG")
    with ZipFile(folder / "files.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.save([torch.zeros(9)], folder / "list.pt")
    torch.save({"a": pickle.Pickler}, folder / "object.pt")
    tensor = {"a.weight": torch.zeros(99)}
    for name in ("cut.safetensors", "diffusion_pytorch_model-00002-of-00003.safetensors"):
        save_file(tensor, folder / name)
    torch.save(tensor, folder / "cut.pt")
    for name in ("cut.safetensors", "cut.pt"):
        (folder / name).write_bytes((folder / name).read_bytes()[:300])
    for name, (key, _) in OTHERS.items():
        save_file({key: torch.zeros(3, 3)}, folder / f"{name}.safetensors")
    torch.save({"module": published(CONFIG)}, folder / "mp_rank_00_model_states.pt")
    shutil.copy(FIXTURES / "vae_weights.safetensors", folder / "vae.safetensors")
    shutil.copy(FIXTURES / "wav2vec2_weights.safetensors", folder / "wav2vec2.safetensors")
    for file in run(folder / "mp_rank_00_model_states.pt", folder):
        shutil.copy(file, folder)
    shutil.rmtree(folder / "diffusion_models")
    return folder


def made(file: Path) -> list[Path]:
    """The folder in which a conversion puts its results."""
    plan = convert.plan(file, read_weights(file), "bf16")
    return convert.convert(plan, file.parent / "never", ignore)


Load = Callable[[Path], object]

LOADERS: dict[str, Load] = {
    "transformers": load_transformers,
    "vae": load_vae,
    "speech encoder": load_speech_encoder,
    "text encoder": partial(TextEncoder.load, dtype=torch.float16),
    "check": check,
    "convert": made,
}

EVALUATION: dict[str, Load] = {"SyncNet": load_syncnet, "FID's Inception": load_inception}


def refusal(load: Load, file: Path) -> str:
    """The one sentence that refuses a file."""
    with pytest.raises(InputError) as error:
        load(file)
    said = str(error.value)
    assert str(file) in said
    assert "\n" not in said
    assert re.search(r"[:;] [a-z]+ .*\w", said), "what to do"
    assert not (file.parent / "never").exists()
    return said.replace(f"{file.parent}/", "")


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_files_that_are_no_weights(files, loader, name):
    expected = FOLDERS.get((loader, name), NO_WEIGHTS[name])
    assert re.search(expected, refusal(LOADERS[loader], files / name))


FOLDERS = {
    ("speech encoder", "folder.safetensors"): "There are no weights in folder",
    ("speech encoder", "diffusers"): "There are no weights in diffusers",
    ("text encoder", "folder.safetensors"): r"There is no config\.json in folder",
    ("text encoder", "diffusers"): r"There is no config\.json in diffusers",
    ("text encoder", "missing.safetensors"): "There is no T5 for the prompt at missing",
}
"""Loaders of folders say what is missing in a folder. Only the text encoder may be missing."""


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", OTHERS)
def test_weights_of_other_models(files, loader, name):
    _, what = OTHERS[name]
    assert re.search(what, refusal(LOADERS[loader], files / f"{name}.safetensors"))


def test_a_t5_that_is_not_whole(files):
    file = files / "t5.safetensors"
    save_file({"encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(3, 3)}, file)
    for loader in ("text encoder", "check"):
        assert "is an incomplete T5, or not of version 1.1" in refusal(LOADERS[loader], file)


@pytest.mark.parametrize("network", EVALUATION)
def test_networks_of_the_evaluation(files, network):
    said = refusal(EVALUATION[network], files / "flux.safetensors")
    assert re.search(rf"is not {network} \(0 of its \d+ tensors are there\): give", said)
    for name in ("picture.png", "missing.safetensors", "cut.pt"):
        assert re.search(NO_WEIGHTS[name], refusal(EVALUATION[network], files / name))


@pytest.mark.parametrize("name", [*NO_WEIGHTS, "flux.safetensors"])
def test_networks_that_isolate_vocals(files, name):
    pytest.importorskip("onnxruntime")
    said = refusal(VocalIsolator, files / name)
    assert "MDX-Net" in said or "There is no file" in said or "download it again" in said


OWN = {
    "mp_rank_00_model_states.pt": ("the Hallo3 transformers", "transformers"),
    "hallo3_dit_bf16.safetensors": ("the Hallo3 denoiser", "transformers"),
    "hallo3_reference_bf16.safetensors": ("the Hallo3 reference network", None),
    "hallo3_audio_bf16.safetensors": ("the Hallo3 audio projector", None),
    "vae.safetensors": ("the CogVideoX VAE", "vae"),
    "wav2vec2.safetensors": ("a wav2vec2 speech encoder", "speech encoder"),
}
"""Hallo3's own files, their names in errors, and the part of the model that each is."""


@pytest.mark.parametrize("loader", ["transformers", "vae", "speech encoder", "text encoder"])
@pytest.mark.parametrize("name", OWN)
def test_the_file_of_another_part(files, loader, name):
    what, own = OWN[name]
    assert describe(read_weights(files / name)) == what
    if loader != own:
        assert re.search(
            f"(but|is) {what}(, converted)?: choose", refusal(LOADERS[loader], files / name)
        )


@pytest.mark.parametrize("loader", ["transformers", "check", "convert"])
def test_a_published_file_without_a_network_is_not_whole(files, tmp_path, loader):
    weights = read_weights(files / "mp_rank_00_model_states.pt")
    left = {name: value for name, value in weights.items() if name.startswith("ref_model.")}
    torch.save({"module": left}, file := tmp_path / "mp_rank_00_model_states.pt")
    assert re.search(r"lacks \d+ of \d+ tensors", refusal(LOADERS[loader], file))


def test_what_is_converted_is_not_converted_again(files):
    said = refusal(made, files / "hallo3_dit_bf16.safetensors")
    assert "is already converted (the denoiser): give the published file" in said


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "hubert"}, "is a folder of hubert, not wav2vec2: choose the folder of"),
        ({"_class_name": "AutoencoderKL"}, "is a folder of AutoencoderKL, not wav2vec2: choose"),
        ({"model_type": "wav2vec2", "num_hidden_layers": 24}, "is a folder of a wav2vec2 of 24"),
        ([], r"config\.json cannot be read"),
    ],
)
def test_folders_of_other_speech_encoders(tmp_path, config, says):
    """HuBERT has the same tensors as wav2vec2, so only its configuration shows the difference."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"feature_extractor.conv_layers.0.conv.weight": torch.zeros(1)}, tmp_path / WEIGHTS)
    for path in (tmp_path, tmp_path / WEIGHTS):
        with pytest.raises(InputError, match=says):
            load_speech_encoder(path)


def test_folders_of_other_text_encoders(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "umt5"}))
    load = LOADERS["text encoder"]
    with pytest.raises(InputError, match=r"is a folder of umt5, not t5: choose the folder of"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(InputError, match=rf"{WEIGHTS} is empty: download it again"):
        load(tmp_path)


@pytest.mark.parametrize("part", ["reference", "audio"])
def test_a_companion_that_is_damaged_is_named(files, tmp_path, part):
    """The error does not name the denoiser that was chosen."""
    for name in ("dit", "reference", "audio"):
        shutil.copy(files / f"hallo3_{name}_bf16.safetensors", tmp_path)
    file = tmp_path / f"hallo3_{part}_bf16.safetensors"
    weights, metadata = load_file(file), read_metadata(file)
    left = sorted(weights)[0]
    save_file(weights | {left: weights[left].flatten()[1:].clone()}, file, metadata)
    with pytest.raises(InputError, match=rf"hallo3_{part}_bf16\.safetensors has 1 tensors of the"):
        load_transformers(tmp_path / "hallo3_dit_bf16.safetensors")
    del weights[left]
    save_file(weights, file, metadata)
    with pytest.raises(InputError, match=rf"hallo3_{part}_bf16\.safetensors lacks 1 of"):
        load_transformers(tmp_path / "hallo3_dit_bf16.safetensors")


@pytest.mark.parametrize(
    ("left", "says"),
    [("vae/hallo3", "The autoencoder of the model is not at"), ("wav2vec", "The speech encoder")],
)
def test_a_part_that_is_missing_is_said_before_anything_is_loaded(
    files, tmp_path, monkeypatch, left, says
):
    places = [f"diffusion_models/{TRANSFORMER_FILE}", *COMFYUI_DOWNLOADS]
    for place in (tmp_path / name for name in places if left not in name):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files / "mp_rank_00_model_states.pt", place)
    monkeypatch.setattr("hallo3_core.checkpoints.filling.fill", pytest.fail)
    with pytest.raises(InputError, match=says):
        Hallo3.from_folder(tmp_path)


@pytest.mark.parametrize("name", ["flux.safetensors", "cut.pt", "hallo3_audio_bf16.safetensors"])
def test_the_model_that_was_chosen_is_judged_first(files, name):
    """It is checked before the files around it."""
    refusal(Hallo3.from_folder, files / name)
