"""What the loaders, Encode Prompt and Speaker say under themselves."""

import pytest
import torch
from comfyui import BUILT_IN, Graph, Host, build, given
from safetensors.torch import save_file
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from hallo3_core import builtin

TOO_LONG = "The prompt has 301 tokens: what comes after 226 is cut off."


def models(host: Host, folder: str):
    path = host.base / "models" / folder
    path.mkdir(parents=True, exist_ok=True)
    return path


def megabytes(network: nn.Module) -> str:
    size = sum(value.nbytes for value in network.state_dict().values()) / 2**20
    assert size > 0.5  # not rounded to nothing
    return f"{size:.0f} MB in float32"


def test_load_vae(host, said):
    vae = builtin.load().vae
    save_file(vae.state_dict(), models(host, "vae") / "small_vae.safetensors")
    graph = Graph()
    found = [graph("Hallo3LoadVAE", vae_name=name) for name in (BUILT_IN, "small_vae.safetensors")]
    for out in found:
        graph.keep(out)
    host.run(graph, fresh=True)
    kinds = ("built-in VAE", "CogVideoX VAE")
    for kind, out in zip(kinds, found, strict=True):
        assert said[out.link[0]] == f"{kind}: {megabytes(vae)}"


def test_load_speech_encoder(host, said):
    """It is in a folder with a configuration, which has other sizes than the built-in one."""
    sizes = {"hidden_size": 96, "num_hidden_layers": 12, "num_attention_heads": 2}
    other = Wav2Vec2Model(Wav2Vec2Config(intermediate_size=128, conv_dim=(64,) * 7, **sizes))
    other.save_pretrained(models(host, "audio_encoders") / "small_encoder")
    graph = Graph()
    names = (BUILT_IN, "small_encoder")
    found = [graph("Hallo3LoadSpeechEncoder", encoder_name=name) for name in names]
    for out in found:
        graph.keep(out)
    host.run(graph, fresh=True)
    expected = f"wav2vec2: 12 layers of width 96, {megabytes(other)}"
    assert said[found[1].link[0]] == expected
    ours = megabytes(builtin.load().speech_encoder)
    assert said[found[0].link[0]] == f"built-in wav2vec2: 12 layers of width 64, {ours}"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a man", ["6 of at most 226 tokens"]),
        ("", ["1 of at most 226 tokens"]),
        ("x" * 300, [TOO_LONG, "301 of at most 226 tokens"]),
    ],
)
def test_encode_prompt(host, said, text, lines):
    """The built-in text encoder has a token for each letter, and one for the end."""
    graph = Graph()
    prompt = graph("Hallo3EncodePrompt", text=text)
    graph.keep(prompt)
    host.run(graph, fresh=True)
    assert said[prompt.link[0]].splitlines() == lines


def test_speaker(host, said):
    """A quarter of the picture, and a mask where nothing is painted."""
    parts = build(seconds=2.5)
    quarter, nothing = torch.zeros(1, 60, 90), torch.zeros(1, 64, 64)
    quarter[:, :30, :45] = 1
    masks = [given(host, parts.graph, "MASK", mask) for mask in (quarter, nothing)]
    speakers = [parts.graph("Hallo3Speaker", speech=parts.speech, mask=mask) for mask in masks]
    for out in speakers:
        parts.graph.keep(out)
    host.run(parts.graph, fresh=True)
    said_by = [said[out.link[0]] for out in speakers]
    assert said_by == [f"2.52 s of speech, in {share} % of the picture" for share in (25, 100)]
