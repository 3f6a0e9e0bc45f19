"""The memory of a video on a device is counted, planned and kept to."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from card import Card
from denoiser_memory import denoiser_call
from hallo3_core import animate, builtin
from hallo3_core import cli as command_line
from hallo3_core.autoencoder import images, vae
from hallo3_core.autoencoder.motion import motion_latents
from hallo3_core.autoencoder.new_frames import read_new_frames
from hallo3_core.errors import InputError
from hallo3_core.memory.model_size import Weights
from hallo3_core.memory.need import decoding_bytes, encoding_bytes, sampling_bytes
from hallo3_core.memory.placement import Placement
from hallo3_core.memory.plan import GB, RESERVED, Work, plan_memory
from hallo3_core.network.config import LATENT_FRAMES, MOTION_FRAMES, Hallo3Config
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.network.weight_formats import FORMATS
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.speech.encode import Speech, encode_speech
from training.peak import Peak

BF16 = torch.bfloat16


@pytest.fixture(scope="module")
def released_vae():
    with torch.device("meta"):
        return nn.Module.to(vae.autoencoder(**vae.RELEASED), BF16)


@pytest.mark.parametrize("rows", [1, 2])
def test_sampling_takes_what_is_estimated(rows):
    estimate = sampling_bytes(Hallo3Config(), rows, size=2)
    assert 1 <= estimate / denoiser_call(rows, BF16) < 1.1


@pytest.mark.parametrize("voices", [2, 3, 5])
def test_sampling_a_dialogue_takes_what_is_estimated(voices):
    """The branch without speech hears one voice more: silence."""
    estimate = sampling_bytes(Hallo3Config(), 1, size=2, voices=voices + 1)
    assert 1 <= estimate / denoiser_call(1, BF16, voices) < 1.1


def test_a_dialogue_streams_more_layers(released_vae):
    """A voice takes 0.21 GB, and a layer 0.33 GB. The branches are computed one by one."""
    free = 12 * GB - RESERVED
    alone, three, ten = (
        plan_memory(Hallo3Config(), released_vae, "bf16", free, voices=voices)
        for voices in (2, 5, 12)
    )
    assert (alone.rows, three.rows, ten.rows) == (2, 1, 1)
    assert [plan.streamed("sampling") for plan in (alone, three, ten)] == [22, 20, 24]
    assert ten.most <= free


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
    assert 1 <= decoding_bytes(128, *size, 2) / decoding.bytes < 1.1
    assert 1 <= encoding_bytes(128, 3, height, width, 2) / encoding.bytes < 1.1


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 8, 13, 17])
@pytest.mark.parametrize("size", [(480, 720), (128, 192)])
def test_videos_of_any_length_are_encoded_in_what_is_estimated(released_vae, size, frames):
    with Peak(released_vae) as peak:
        released_vae.encode(torch.empty(1, 3, frames, *size, dtype=BF16, device="meta"))
    assert 1 <= encoding_bytes(128, frames, *size, 2) / peak.bytes < 1.2


@torch.no_grad()
@pytest.mark.parametrize("tiles", [2, 4])
def test_tiles_take_what_is_estimated(released_vae, tiles):
    latents = torch.empty(1, 16, 13, 60, 90, dtype=BF16, device="meta")
    with Peak(released_vae) as peak:
        for _ in vae.decode(released_vae, latents, tiles):
            pass
    assert 1 <= decoding_bytes(128, 60, 90, 2, tiles) / peak.bytes < 1.1


DENOISER = {
    "bf16": 15.35e9,
    "fp8": 7.76e9,
    "nvfp4": 4.95e9,
    "asym_w4a8_int8": 4.62e9,
    "convrot_w4a4": 4.76e9,
}
"""Bytes of the denoiser."""


@pytest.mark.parametrize(
    ("card", "kind", "in_turn", "streamed", "rows", "tiles"),
    [
        (4, "bf16", True, 41, 1, 3),
        (6, "bf16", True, 40, 2, 2),
        (8, "bf16", True, 34, 2, 1),
        (8, "fp8", True, 26, 2, 1),
        (8, "nvfp4", True, 0, 1, 1),
        (8, "asym_w4a8_int8", True, 0, 1, 1),
        (8, "convrot_w4a4", True, 0, 1, 1),
        (12, "bf16", True, 22, 2, 1),
        (12, "fp8", True, 0, 1, 1),
        (16, "bf16", True, 10, 2, 1),
        (16, "fp8", True, 0, 2, 1),
        (24, "bf16", True, 0, 2, 1),
        (24, "fp8", False, 0, 2, 1),
        (48, "bf16", False, 0, 2, 1),
    ],
)
def test_cards(released_vae, card, kind, in_turn, streamed, rows, tiles):
    plan = plan_memory(Hallo3Config(), released_vae, kind, card * GB - RESERVED)
    assert (plan.in_turn, plan.streamed("sampling")) == (in_turn, streamed)
    assert (plan.rows, plan.tiles) == (rows, tiles)
    assert plan.most <= card * GB - RESERVED
    assert plan.weights.denoiser == pytest.approx(DENOISER[kind], rel=0.01)


@pytest.mark.parametrize("free", range(4, 20))
def test_as_few_layers_come_in_a_step_as_there_is_room_for(released_vae, free):
    """A batch of both branches needs more memory.

    So more layers are streamed, but once per step instead of twice.
    """
    weights = Weights.of(Hallo3Config(), released_vae, FORMATS["bf16"], 2)
    work = Work(Hallo3Config(), released_vae, weights, FORMATS["bf16"], 2, listening=True)
    plans = [work.plan(in_turn=True, rows=rows, free=free * GB) for rows in (1, 2)]
    chosen = plan_memory(Hallo3Config(), released_vae, "bf16", free * GB)
    assert chosen.coming == min(plan.coming for plan in plans if plan.most <= free * GB)


def test_layers_that_come_one_by_one_leave_two_of_their_matrices(released_vae):
    """A layer of the denoiser and a layer of the reference network have different sizes."""
    plan = plan_memory(Hallo3Config(), released_vae, "bf16", 8 * GB - RESERVED)
    largest = 4 * 3072 * 3073 * 2
    for name, network in (("sampling", Denoiser), ("portrait", ReferenceNetwork)):
        stage = next(stage for stage in plan.stages if stage.name == name)
        with torch.device("meta"):
            layer = network(Hallo3Config(layers=1)).layers[0]
        away = 2 * sum(value.numel() for value in layer.parameters())
        assert stage.layer.matrices == pytest.approx(away, rel=1e-3)
        staying = stage.weights - stage.streamed * stage.layer.matrices
        assert plan.peak(stage) == pytest.approx(staying + stage.work + 2 * largest, rel=1e-3)
    assert [stage.streamed for stage in plan.stages] == [25, 0, 34, 0, 0]


def test_weights_in_fp8_compute_in_the_numbers_that_were_asked_for(released_vae):
    """On a CPU these are float32, and the work needs twice as much memory."""
    usual, twice = (
        plan_memory(Hallo3Config(), released_vae, "fp8", 100 * GB, size=size) for size in (2, 4)
    )
    for name in ("sampling", "decoding", "motion"):
        pair = [next(s.work for s in plan.stages if s.name == name) for plan in (usual, twice)]
        assert pair[1] / pair[0] == pytest.approx(2, rel=0.05)
    assert twice.weights.vae == 2 * usual.weights.vae


def test_a_card_that_is_too_small(released_vae):
    with pytest.raises(InputError, match=r"takes at least 3\.\d GB at 720 x 480 in bf16"):
        plan_memory(Hallo3Config(), released_vae, "bf16", 2 * GB)
    with pytest.raises(InputError, match=r"use a device with 37 GB"):
        plan_memory(Hallo3Config(), released_vae, "bf16", 24 * GB, offload=False)


@pytest.fixture(scope="module")
def job(recorded_model):
    """A model, an identity and half a second of speech."""
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


@torch.no_grad()
def test_an_identity_and_motion_rest_in_main_memory(recorded_model):
    """They do so on any device, because a host keeps them for a long time."""
    model = deepcopy(recorded_model)
    for network in (model.vae, model.reference_network):
        nn.Module.to(network, "meta")
    with Card(model.vae, model.reference_network):
        picture = torch.rand(3, 40, 70)
        identity = encode_portrait(
            model.vae, model.reference_network, picture, None, SeededNoise(0)
        )
        frames = torch.zeros(1, 3, 2, *model.config.canvas, device="meta")
        motion = motion_latents(
            model.vae, identity.portrait, frames, SeededNoise(0).stream("motion")
        )
    kept = [identity.portrait, identity.motion, identity.face, *identity.features, motion]
    assert {tensor.device.type for tensor in kept} == {"cpu"}


def first_segment(model, identity, speech) -> animate.Segment:
    return next(animate.animate(model, identity, speech, SeededNoise(0), steps=2))


def test_networks_in_turn_and_layers_one_by_one_compute_the_same(job):
    model, identity, speech = deepcopy(job)
    expected = first_segment(model, identity, speech)
    places = {name: value.data_ptr() for name, value in model.denoiser.state_dict().items()}
    plan = plan_memory(model.config, model.vae, "fp32", 10 * GB)
    stages = [replace(stage, streamed=2 if stage.layer else 0) for stage in plan.stages]
    plan = replace(plan, stages=tuple(stages), in_turn=True, rows=1)
    found = first_segment(model.placed(torch.device("cpu"), plan), identity, speech)
    assert torch.equal(found.latents, expected.latents)
    assert torch.equal(found.frames, expected.frames)
    for name, value in model.denoiser.state_dict().items():
        assert value.data_ptr() == places[name]


def test_what_is_streamed_is_there_only_for_its_call():
    """On a device, the weights of a layer are copies that exist only while the layer computes."""
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


def test_keys_and_values_rest_where_networks_do(recorded_model):
    """They do not share memory with larger tensors, and leave the device after their use."""
    config, denoiser = recorded_model.config, recorded_model.denoiser
    tokens = torch.randn(1, config.frame_tokens, config.width)
    audio = torch.randn(1, LATENT_FRAMES, config.audio_tokens, config.audio_width)
    with torch.no_grad():
        kinds = (
            denoiser.reference_keys_values([tokens] * config.layers),
            denoiser.face_keys_values(torch.randn(1, config.face_channels)),
            denoiser.audio_keys_values(audio),
        )
    for pair in (pair for kind in kinds for pair in kind):
        assert [part.untyped_storage().nbytes() for part in pair] == [p.nbytes for p in pair]
    card = torch.device("meta")
    for in_turn, place in ((True, torch.device("cpu")), (False, card)):
        placement = Placement(card, in_turn=in_turn)
        resting = placement.rest(kinds[0])
        assert {part.device for pair in resting for part in pair} == {place}
        assert {part.device for pair in placement.bring(resting) for part in pair} == {card}


def test_tiles_are_near_the_whole():
    model = builtin.load().vae
    latents = torch.randn(1, 16, 5, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = torch.cat(list(vae.decode(model, latents)), dim=2)
        (tiled,) = vae.decode(model, latents, tiles=2)
    assert tiled.shape == whole.shape
    assert 0 < (tiled - whole).abs().mean() / whole.std() < 0.25


def test_decoding_that_runs_out_of_memory_is_done_in_tiles(job, monkeypatch):
    """The pretended card has memory for a third of the picture's height and width."""
    model = job[0]
    tried = []

    def decode(autoencoder, latents, tiles, chunks):
        tried.append(tiles)
        if tiles < 3:
            raise torch.OutOfMemoryError
        yield torch.zeros(1, 3, 49, 48, 96)

    monkeypatch.setattr(images, "decode", decode)
    frames = images.decode_images(model.vae, torch.zeros(1, 16, 13, 12, 24), count=14)
    assert tried == [1, 2, 3]
    assert frames.shape == (14, 48, 96, 3)


def animate_but_decode_nothing(picture, output, monkeypatch, *options):
    """Run the command while the decoder runs out of memory, and return the result."""

    def full(*args):
        raise torch.OutOfMemoryError

    arguments = ["hallo3", "animate", "--portrait", str(picture), "--steps", "1", "--quiet"]
    monkeypatch.setattr("sys.argv", [*arguments, "--output", str(output), *options])
    with monkeypatch.context() as patch:
        patch.setattr(images, "decode", full)
        return command_line.main()


def test_latents_that_cannot_be_decoded_are_kept(picture, tmp_path, monkeypatch, capsys):
    output = tmp_path / "video.mp4"
    assert animate_but_decode_nothing(picture, output, monkeypatch, "--no-store") == 2
    file = tmp_path / "video.segment0.latent"
    assert str(file) in capsys.readouterr().err
    latents = load_file(file)["latent_tensor"]
    assert latents.shape == (1, 16, 13, 16, 24)
    assert latents.isfinite().all()
    assert read_new_frames(latents) == 47
    assert not output.exists()


def test_latents_in_the_store_are_decoded_by_the_next_start(picture, tmp_path, monkeypatch, capsys):
    output = tmp_path / "video.mp4"
    assert animate_but_decode_nothing(picture, output, monkeypatch) == 2
    assert "decoded without sampling" in capsys.readouterr().err
    assert list(tmp_path.glob("video*")) == []

    sampled = []

    def sample(animator, index, motion, seed):
        sampled.append(index)
        raise InputError("enough")

    monkeypatch.setattr(animate.ModelAnimator, "sample", sample)
    assert command_line.main() == 2
    assert sampled == [1]
    assert (tmp_path / "video.unfinished.mp4").exists()


def test_both_branches_at_once_compute_the_same(job):
    """It is done if the memory suffices, but not if only a part of the steps is guided."""
    model, identity, speech = job
    expected = first_segment(model, identity, speech)
    plan = plan_memory(model.config, model.vae, "fp32", 10 * GB)
    assert plan.rows == 2
    found = first_segment(model.placed(torch.device("cpu"), plan), identity, speech)
    assert torch.allclose(found.latents, expected.latents, atol=1e-4)
