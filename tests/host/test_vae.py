"""ComfyUI's own nodes work with our VAE, and keep the length of a segment."""

import copy
import importlib
import shutil
import sys

import pytest
import torch
from comfyui import Host, HostError, Parts, build
from safetensors.torch import load_file
from test_segments import sample

from hallo3_core import builtin, examples
from hallo3_core.model.check import check


@pytest.fixture(scope="module")
def vae(host):
    return importlib.import_module(pack(host, "Hallo3LoadVAE")).open_vae(None)


def pack(host: Host, node: str) -> str:
    return host.nodes.NODE_CLASS_MAPPINGS[node].__module__


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """A face that moves to the side, 9 frames of 128 x 320."""
    portrait = torch.nn.functional.interpolate(examples.portrait()[None], (320, 320))[:, :, 60:188]
    frames = [portrait.roll(2 * i, dims=3) for i in range(9)]
    return torch.cat(frames).movedim(1, -1)


@pytest.fixture(scope="module")
def latents(vae, images) -> torch.Tensor:
    return vae.encode(images)


@pytest.fixture(scope="module")
def whole(vae, latents) -> torch.Tensor:
    """The pictures of the latents, decoded without tiles."""
    return vae.decode(latents)[0]


def test_it_has_all_that_a_stock_vae_has(vae, small_stock_vae):
    """Except for what is different on purpose: our VAE makes its own tiles."""
    stock = importlib.import_module("comfy.sd").VAE(sd=builtin.load().vae.state_dict())
    assert vars(vae).keys() == vars(stock).keys()
    different = {
        name
        for name, value in vars(stock).items()
        if isinstance(value, bool | int | str | torch.dtype | torch.device | None)
        and getattr(vae, name) != value
    }
    assert different == {"handles_tiling"}
    for ratio in ("upscale_ratio", "downscale_ratio"):
        ours, theirs = getattr(vae, ratio), getattr(stock, ratio)
        assert ours[1:] == theirs[1:]
        assert [ours[0](frames) for frames in range(60)] == [theirs[0](i) for i in range(60)]
    assert vae.upscale_index_formula == vae.downscale_index_formula == (4, 8, 8)
    for method in (
        "spacial_compression_encode",
        "spacial_compression_decode",
        "temporal_compression_decode",
        "is_dynamic",
        "model_size",
        "vae_output_dtype",
        "throw_exception_if_invalid",
    ):
        assert getattr(vae, method)() == getattr(stock, method)()
    assert vae.get_sd().keys() == stock.get_sd().keys()


def test_memory_is_reserved_for_the_video_and_grows_with_the_tile(vae):
    shape = (1, 16, 13, 60, 90)
    whole = vae.memory_used_decode(shape, torch.bfloat16)
    tile = vae.memory_used_decode(vae._tile_bounded_shape(shape, 64, 64, 4), torch.bfloat16)
    assert whole > 3 * 49 * 480 * 720 * 4
    assert tile < 0.75 * whole
    assert vae.memory_used_encode((1, 3, 49, 480, 720), torch.bfloat16) > 0


def test_vae_encode_and_decode(vae, images, latents, whole):
    assert latents.shape == (1, 16, 3, 16, 40)
    assert whole.shape == images.shape
    assert (whole - images).abs().mean() < 0.05
    odd = torch.nn.functional.pad(images[:1], (0, 1, 0, 5, 0, 3), value=1)  # RGBA, no multiple of 8
    assert vae.encode(odd).shape == (1, 16, 1, 16, 40)


def test_vae_decode_of_any_number_of_frames(vae, latents, whole):
    """One picture gives one latent frame. Half of a video gives half of the latents."""
    for frames in (1, 2):
        some = vae.decode(latents[:, :, :frames])
        assert some.shape == (1, 4 * frames - 3, 128, 320, 3)
        assert (some[0] - whole[: len(some[0])]).abs().mean() < 0.02


@pytest.mark.parametrize("temporal", [(8, 4), (64, 8)])
def test_vae_decode_tiled(host, vae, latents, whole, temporal):
    size, overlap = temporal
    [tiled] = host.nodes.VAEDecodeTiled().decode(
        vae,
        {"samples": latents},
        tile_size=96,
        overlap=24,
        temporal_size=size,
        temporal_overlap=overlap,
    )
    assert tiled.shape == whole.shape
    assert 0 < (tiled - whole).abs().mean() < 0.005
    assert (tiled - whole).abs().max() < 0.16


def test_vae_encode_tiled(host, vae, images, latents):
    [tiled] = host.nodes.VAEEncodeTiled().encode(
        vae, images, tile_size=96, overlap=24, temporal_size=64, temporal_overlap=8
    )
    assert tiled["samples"].shape == latents.shape
    assert 0 < (tiled["samples"] - latents).abs().mean() < 0.05 * latents.std()


def test_tiles_of_a_size_that_nobody_gave(vae, images, latents, whole):
    """The tiles are larger than this picture."""
    assert (vae.decode_tiled(latents)[0] - whole).abs().max() < 1e-5
    assert (vae.encode_tiled(images) - latents).abs().max() < 1e-4


def full(*args):
    raise torch.OutOfMemoryError


def test_the_retry_when_memory_runs_out(vae, images, latents, whole, monkeypatch):
    """Tiles of 256 pixels."""
    monkeypatch.setattr(vae.first_stage_model, "decode", full)
    monkeypatch.setattr(vae.first_stage_model, "encode", full)
    [again] = vae.decode(latents)
    assert again.shape == whole.shape
    assert 0 < (again - whole).abs().mean() < 0.005
    encoded = vae.encode(images)
    assert 0 < (encoded - latents).abs().mean() < 0.05 * latents.std()


def test_a_batch_of_videos(vae, latents, whole):
    turned = latents.flip(-1)
    both = vae.decode(torch.cat([latents, turned]))
    for found, alone in zip(both, (whole, vae.decode(turned)[0]), strict=True):
        assert (found - alone).abs().max() < 1e-4


def test_another_device(host, vae, latents):
    """Select VAE Device makes a shallow copy, a clone, and a VAE that is loaded again."""
    picture = vae.decode(latents[:, :, :1])
    select = host.nodes.NODE_CLASS_MAPPINGS["SelectVAEDevice"]
    [same] = select.execute(vae, "default").result
    assert same is not vae
    assert torch.equal(same.decode(latents[:, :, :1]), picture)
    other = copy.copy(vae)
    other.patcher = vae.patcher.deepclone_multigpu(torch.device("cpu"))
    other.first_stage_model = other.patcher.model
    assert other.first_stage_model is not vae.first_stage_model
    assert torch.equal(other.decode(latents[:, :, :1]), picture)


def test_vae_save_and_back(host, vae, small_stock_vae):
    """Load Hallo3 VAE, the stock Load VAE and `check` read the saved file."""
    save = importlib.import_module("comfy_extras.nodes_model_merging").VAESave
    save().save(vae, "vae/kept")
    [file] = (host.base / "output" / "vae").glob("kept*.safetensors")
    assert check(file).kind == "CogVideoX VAE"
    (host.base / "models" / "vae").mkdir(exist_ok=True)
    shutil.copy(file, host.base / "models" / "vae" / "kept.safetensors")
    ours = importlib.import_module(pack(host, "Hallo3LoadVAE")).open_vae(file)
    [stock] = host.nodes.VAELoader().load_vae("kept.safetensors")
    for loaded in (ours, stock):
        assert loaded.get_sd().keys() == vae.get_sd().keys()
        assert all(torch.equal(loaded.get_sd()[key], value) for key, value in vae.get_sd().items())
    save().save(stock, "vae/stock")
    [file] = (host.base / "output" / "vae").glob("stock*.safetensors")
    assert load_file(file).keys() == vae.get_sd().keys()


def decoded(parts: Parts, latent, **inputs):
    return parts.graph(
        "Hallo3DecodeVAE", latent=latent, vae=parts.vae, identity=parts.identity, **inputs
    )


def test_the_length_of_a_segment_survives_save_load_and_rebatch(host):
    """1.96 s of speech are 49 frames, so the second segment has two."""
    parts = build(seconds=1.96)
    latent = sample(parts, 1, steps=1)
    saved = parts.graph("SaveLatent", samples=latent, filename_prefix="last")
    rebatched = parts.graph("RebatchLatents", latents=latent, batch_size=1)
    for way in (latent, saved, rebatched):
        parts.graph.keep(decoded(parts, way))
    expected, *others = host.run(parts.graph)
    assert len(expected) == 2
    [file] = (host.base / "output").glob("last*.latent")
    shutil.copy(file, host.base / "input" / "last.latent")
    again = build(seconds=1.96)
    again.graph.keep(decoded(again, again.graph("LoadLatent", latent="last.latent")))
    for frames in (*others, *host.run(again.graph)):
        assert torch.equal(frames, expected)


def test_a_latent_that_does_not_say_how_long_it_is(host, segment, caplog):
    """A latent of another sampler loses its length when it is saved, but not before."""
    latent, vae, identity, frames = segment
    assert len(frames) == 7
    video = sys.modules[pack(host, "Hallo3DecodeVAE")]
    made = latent["samples"] * 1.5
    found, _ = video.decode_segment({"samples": made, "hallo3_new_frames": 7}, vae, identity)
    assert len(found) == 7
    assert not caplog.records
    found, _ = video.decode_segment({"samples": made}, vae, identity)
    assert len(found) == 47
    assert "all 47 frames are shown" in caplog.text


def test_a_batch_of_segments(host):
    """They are decoded one after the other, and fade in if there are frames before them."""
    parts = build(seconds=1.96)
    graph = parts.graph
    first, second = sample(parts, 0, steps=1), sample(parts, 1, steps=1)
    both = graph("LatentBatch", samples1=first, samples2=second)
    alone, end = decoded(parts, first), decoded(parts, second)
    faded = decoded(parts, second, previous_frames=alone)
    together = decoded(parts, both)
    before = graph("ImageFromBatch", image=alone, batch_index=46, length=1)
    smooth = decoded(parts, both, previous_frames=before)
    for out in (alone, end, faded, end[1], together, together[1], smooth):
        graph.keep(out)
    alone, end, faded, last, together, together_last, smooth = host.run(graph)
    assert torch.equal(together, torch.cat([alone, end]))
    assert torch.equal(together_last, last)
    assert len(smooth) == 49
    assert torch.equal(smooth[12:47], alone[12:])
    assert (smooth[47:] - faded).abs().max() < 1e-5
    assert (faded - end).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("node", "sizes", "found"),
    [
        ("EmptyLatentImage", {"width": 192, "height": 128}, "4 x 16 x 24"),
        ("EmptyHunyuanLatentVideo", {"width": 192, "height": 128, "length": 101}, "16 x 26 x 16 x"),
        ("EmptyHunyuanLatentVideo", {"width": 96, "height": 64, "length": 49}, "16 x 13 x 8 x 12"),
    ],
)
def test_latents_that_are_no_segment(host, parts, node, sizes, found):
    empty = parts.graph(node, batch_size=1, **sizes)
    parts.graph.keep(decoded(parts, empty))
    message = (
        f"The latent has the shape {found}.*, but a segment of this identity has 16 x 13 x 16 x 24"
    )
    with pytest.raises(HostError, match=message) as error:
        host.run(parts.graph)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def segment(host):
    """A latent, a VAE, an identity, and the seven frames of the latent."""
    parts = build(seconds=0.28)
    latent = sample(parts, 0, steps=1)
    for out in (latent, parts.vae, parts.identity, decoded(parts, latent)):
        parts.graph.keep(out)
    return host.run(parts.graph)


def with_a_hole(images: torch.Tensor) -> torch.Tensor:
    images = images.clone()
    images[-1, 3, 5, 0] = torch.nan
    return images


def opaque(images: torch.Tensor) -> torch.Tensor:
    return torch.cat([images, torch.ones_like(images[..., :1])], dim=3)


def test_images_of_other_nodes(host, segment):
    latent, vae, identity, frames = segment
    video = sys.modules[pack(host, "Hallo3DecodeVAE")]
    plain, _ = video.decode_segment(latent, vae, identity, frames)
    motion = video.extend(frames, vae, identity, 0, 1)
    for change in (torch.Tensor.half, torch.Tensor.bfloat16, opaque):
        found, _ = video.decode_segment(latent, vae, identity, change(frames))
        assert found.dtype == torch.float32
        assert (found - plain).abs().max() < 0.01
        assert (video.extend(change(frames), vae, identity, 0, 1) - motion).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_a_hole, "has pixels that are NaN or infinite"),
        (lambda images: images[:0], "is an array of 0 x 128 x 192 x 3, not of batch"),
        (lambda images: images[..., :2], "is an array of 7 x 128 x 192 x 2, not of batch"),
        (lambda images: images[0], "is an array of 128 x 192 x 3, not of batch"),
    ],
)
def test_images_that_cannot_be_used(host, segment, change, says):
    latent, vae, identity, frames = segment
    video = sys.modules[pack(host, "Hallo3DecodeVAE")]
    error = sys.modules[pack(host, "Hallo3LoadVAE").replace("nodes.loaders", "hallo3_core.errors")]
    with pytest.raises(error.InputError, match=f"The IMAGE on previous_frames {says}"):
        video.decode_segment(latent, vae, identity, change(frames))
    with pytest.raises(error.InputError, match=f"The IMAGE on frames {says}"):
        video.extend(change(frames), vae, identity, 0, 1)


def test_latents_that_are_no_numbers(host, segment):
    latent, vae, identity, _ = segment
    video = sys.modules[pack(host, "Hallo3DecodeVAE")]
    broken = {"samples": latent["samples"] * torch.nan}
    with pytest.raises(Exception, match="The latent has numbers that are not finite"):
        video.decode_segment(broken, vae, identity)
