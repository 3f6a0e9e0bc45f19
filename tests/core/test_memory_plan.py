"""What a video takes of a device: counted, planned and kept to."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hallo3_core import __main__ as command_line
from hallo3_core import animate, builtin, memory_plan, vae
from hallo3_core.config import MOTION_FRAMES, Hallo3Config
from hallo3_core.errors import InputError
from hallo3_core.memory_plan import GB, RESERVED, plan_memory
from hallo3_core.noise import SeededNoise
from hallo3_core.placement import Placement
from hallo3_core.portrait import encode_portrait
from hallo3_core.speech import Speech, encode_speech
from peak import Peak, denoiser_call

BF16 = torch.bfloat16


@pytest.fixture(scope="module")
def released_vae():
    with torch.device("meta"):
        return nn.Module.to(vae.autoencoder(**vae.RELEASED), BF16)


@pytest.mark.parametrize("rows", [1, 2])
def test_sampling_takes_what_is_estimated(rows):
    estimate = memory_plan.sampling_bytes(Hallo3Config(), rows, size=2)
    assert 1 <= estimate / denoiser_call(rows, BF16) < 1.1


@torch.no_grad()
@pytest.mark.parametrize("size", [(60, 90), (40, 40), (16, 24)])
def test_the_autoencoder_takes_what_is_estimated(released_vae, size):
    latents = torch.empty(1, 16, 13, *size, dtype=BF16, device="meta")
    height, width = (8 * side for side in size)
    pixels = torch.empty(1, 3, MOTION_FRAMES + 1, height, width, dtype=BF16, device="meta")
    with Peak(released_vae) as decoding:
        for _ in vae.decode(released_vae, latents):
            pass
    with Peak(released_vae) as encoding:
        released_vae.encode(pixels)
    assert 1 <= memory_plan.decoding_bytes(128, *size, 2) / decoding.bytes < 1.25
    assert 1 <= memory_plan.encoding_bytes(128, 3, height, width, 2) / encoding.bytes < 1.4


@torch.no_grad()
@pytest.mark.parametrize("tiles", [2, 4])
def test_tiles_take_what_is_estimated(released_vae, tiles):
    latents = torch.empty(1, 16, 13, 60, 90, dtype=BF16, device="meta")
    with Peak(released_vae) as peak:
        for _ in vae.decode(released_vae, latents, tiles):
            pass
    assert 1 <= memory_plan.tiled_decoding_bytes(128, 60, 90, 2, tiles) / peak.bytes < 1.5


@pytest.mark.parametrize(
    ("card", "kind", "in_turn", "streamed", "tiles"),
    [
        (6, "bf16", True, 35, 2),
        (8, "bf16", True, 29, 1),
        (8, "fp8", True, 17, 1),
        (12, "fp8", True, 0, 1),
        (16, "bf16", True, 6, 1),
        (24, "bf16", True, 0, 1),
        (48, "bf16", False, 0, 1),
        (48, "fp8", False, 0, 1),
    ],
)
def test_cards(released_vae, card, kind, in_turn, streamed, tiles):
    plan = plan_memory(Hallo3Config(), released_vae, kind, card * GB - RESERVED)
    assert (plan.in_turn, plan.streamed, plan.tiles) == (in_turn, streamed, tiles)
    assert plan.most <= card * GB - RESERVED
    assert plan.weights.denoiser == pytest.approx(15.35e9 if kind == "bf16" else 7.76e9, rel=0.01)


def test_a_card_that_is_too_small(released_vae):
    with pytest.raises(InputError, match=r"takes at least 2\.\d GB at 720 x 480 in bf16"):
        plan_memory(Hallo3Config(), released_vae, "bf16", 2 * GB)
    with pytest.raises(InputError, match=r"use a device with 36 GB"):
        plan_memory(Hallo3Config(), released_vae, "bf16", 24 * GB, offload=False)


@pytest.fixture(scope="module")
def job(recorded_model):
    """A model with its identity and half a second of speech."""
    generator = torch.Generator().manual_seed(1)
    identity = encode_portrait(
        recorded_model.vae,
        recorded_model.reference_network,
        torch.rand(3, 40, 70, generator=generator),
        None,
        SeededNoise(0),
    )
    speech = encode_speech(recorded_model.speech_encoder, torch.randn(32_000, generator=generator))
    return recorded_model, identity, Speech(speech.features, frames=12)


def first_segment(model, identity, speech) -> animate.Segment:
    return next(animate.animate(model, identity, speech, SeededNoise(0), steps=2))


def test_networks_in_turn_and_layers_one_by_one_compute_the_same(job):
    model, identity, speech = job
    expected = first_segment(model, identity, speech)
    places = {name: value.data_ptr() for name, value in model.denoiser.state_dict().items()}
    plan = plan_memory(model.config, model.vae, "fp32", 10 * GB)
    plan = memory_plan.MemoryPlan(plan.stages, plan.weights, in_turn=True, streamed=2, tiles=1)
    found = first_segment(model.placed(torch.device("cpu"), plan), identity, speech)
    assert torch.equal(found.latents, expected.latents)
    assert torch.equal(found.frames, expected.frames)
    for name, value in model.denoiser.state_dict().items():
        assert value.data_ptr() == places[name]


def test_what_is_streamed_is_there_only_for_its_call():
    """With a device of its own, a layer's weights are copies while it works, and no longer."""
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    resting = [value.data_ptr() for value in network.parameters()]
    placement = Placement("cpu", in_turn=True)
    placement.add(network, [network[1]])
    during = []
    network[2].register_forward_hook(
        lambda *_: during.extend(value.data_ptr() for value in network.parameters())
    )
    with placement.working(network):
        network(torch.ones(1, 4))
    moved = [now != before for now, before in zip(during, resting, strict=True)]
    assert moved == [True, True, False, False, True, True]
    assert [value.data_ptr() for value in network.parameters()] == resting


def test_tiles_are_near_the_whole():
    model = builtin.load().vae
    latents = torch.randn(1, 16, 5, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = torch.cat(list(vae.decode(model, latents)), dim=2)
        (tiled,) = vae.decode(model, latents, tiles=2)
    assert tiled.shape == whole.shape
    assert 0 < (tiled - whole).abs().mean() / whole.std() < 0.25


def test_decoding_that_runs_out_of_memory_is_done_in_tiles(job, monkeypatch):
    """As on a card with room for a third of the picture a side."""
    model = job[0]
    tried = []

    def decode(autoencoder, latents, tiles):
        tried.append(tiles)
        if tiles < 3:
            raise torch.OutOfMemoryError
        yield torch.zeros(1, 3, 49, 48, 96)

    monkeypatch.setattr(animate, "decode", decode)
    frames = animate.decode_images(model.vae, torch.zeros(1, 16, 13, 12, 24), count=14)
    assert tried == [1, 2, 3]
    assert frames.shape == (14, 48, 96, 3)


def test_latents_that_cannot_be_decoded_are_kept(picture, tmp_path, monkeypatch, capsys):
    def full(*args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(animate, "decode", full)
    output = tmp_path / "video.mp4"
    arguments = ["hallo3", "animate", "--portrait", str(picture), "--steps", "1", "--quiet"]
    monkeypatch.setattr("sys.argv", [*arguments, "--output", str(output)])
    assert command_line.main() == 2
    file = tmp_path / "video.segment0.latent"
    assert str(file) in capsys.readouterr().err
    latents = load_file(file)["latent_tensor"]
    assert latents.shape == (1, 16, 13, 16, 24)
    assert latents.isfinite().all()
    assert not output.exists()


def test_both_branches_at_once_compute_the_same(job):
    """Where there is the memory; guidance over a part of the steps has no use for it."""
    model, identity, speech = job
    expected = first_segment(model, identity, speech)
    plan = plan_memory(model.config, model.vae, "fp32", 10 * GB)
    assert plan.rows == 2
    found = first_segment(model.placed(torch.device("cpu"), plan), identity, speech)
    assert torch.allclose(found.latents, expected.latents, atol=1e-4)
