"""ComfyUI's own loaders of the VAE and of the text encoder, on small files of the real layout."""

import importlib
import sys

import pytest
import torch
from comfyui import Host, Parts, build
from safetensors.torch import save_file
from test_segments import sample
from transformers import T5Config, T5EncoderModel

from hallo3_core import builtin


def models(host: Host, folder: str):
    path = host.base / "models" / folder
    path.mkdir(parents=True, exist_ok=True)
    return path


def frames_of(parts: Parts, vae):
    identity = parts.encode(parts.graph("LoadImage", image="portrait.png"), vae=vae)
    latent = sample(parts, 0, steps=2)
    return parts.graph("Hallo3DecodeVAE", latent=latent, vae=vae, identity=identity), identity


def test_a_vae_of_the_stock_loader(host, small_stock_vae):
    """It has the weights of the built-in VAE. Only its encoding and its chunks differ."""
    weights = builtin.load().vae.state_dict()
    save_file(weights, models(host, "vae") / "cogvideox_vae.safetensors")
    parts = build(seconds=0.2)
    loaded = parts.graph("VAELoader", vae_name="cogvideox_vae.safetensors")
    for vae in (parts.vae, loaded):
        frames, identity = frames_of(parts, vae)
        motion = parts.graph(
            "Hallo3ExtendWithMotionFrames",
            frames=frames[1],
            identity=identity,
            vae=vae,
            segment_index=1,
            seed=0,
        )
        parts.graph.keep(frames)
        parts.graph.keep(motion)
    ours, our_motion, stock_frames, stock_motion = host.run(parts.graph)
    assert stock_frames.shape == ours.shape == (5, 128, 192, 3)
    assert (stock_frames - ours).abs().mean() < 0.02
    assert stock_motion.shape == our_motion.shape


@pytest.fixture
def literate(host, monkeypatch):
    """The built-in model with random weights for prompts, because it was trained without any."""
    pack = sys.modules[host.nodes.NODE_CLASS_MAPPINGS["Hallo3LoadDiT"].__module__].builtin
    plain = pack.load

    def load(**which):
        model = plain(**which)
        torch.nn.init.normal_(model.denoiser.embed.text.weight, std=0.05)
        return model

    monkeypatch.setattr(pack, "load", load)
    host.executor.reset()
    yield
    host.executor.reset()


def test_a_prompt_of_the_stock_text_encoder(host, literate, monkeypatch, said):
    """CLIPLoader recognises T5 XXL by one matrix. The rest of the file is small."""
    config = {"d_model": 4096, "d_kv": 16, "num_heads": 2, "d_ff": 32, "num_layers": 1}
    config |= {"vocab_size": 8000, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True}
    torch.manual_seed(0)
    encoder = T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **config)).half()
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    weights["encoder.block.23.layer.1.DenseReluDense.wi_1.weight"] = torch.zeros(10240, 1)
    save_file(weights, models(host, "text_encoders") / "t5xxl.safetensors")
    clip = importlib.import_module("comfy.sd1_clip").SDClipModel
    plain = clip.__init__

    def small(self, *args, **kwargs):
        plain(self, *args, **kwargs | {"textmodel_json_config": config | {"model_type": "t5"}})

    monkeypatch.setattr(clip, "__init__", small)
    parts = build(seconds=1)
    loaded = parts.graph(
        "CLIPLoader", clip_name="t5xxl.safetensors", type="cogvideox", device="default"
    )
    prompt = parts.graph("CLIPTextEncode", clip=loaded, text="a man in a book")
    ours = parts.graph("Hallo3EncodePrompt", clip=loaded, text="a man in a book")
    builtin_prompt = parts.graph("Hallo3EncodePrompt", text="a man in a book")
    long = parts.graph("Hallo3EncodePrompt", clip=loaded, text="a book " * 150)
    for out in (prompt, ours, long):
        parts.graph.keep(out)
    for positive in ({}, {"positive": prompt}, {"positive": builtin_prompt}):
        parts.graph.keep(sample(parts, 0, steps=1, **positive))
    text, our_text, _, *latents = host.run(parts.graph)
    assert text[0][0].shape == (1, 226, 4096)
    assert torch.equal(text[0][0], our_text[0][0])
    assert said[ours.link[0]] == "8 of at most 226 tokens"
    assert said[long.link[0]] == (
        "The prompt has 451 tokens: what comes after 226 is cut off.\n451 of at most 226 tokens"
    )
    silent, prompted, otherwise = (latent["samples"] for latent in latents)
    for one, other in ((silent, prompted), (silent, otherwise), (prompted, otherwise)):
        assert (one - other).abs().max() > 1e-3
