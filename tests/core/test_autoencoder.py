"""The autoencoder: in tiles, with every diffusers version, from files of other programs."""

import logging

import pytest
import torch
from diffusers.models.autoencoders import autoencoder_kl_cogvideox as cogvideox
from safetensors.torch import load_file, save_file

from hallo3_core import builtin, examples
from hallo3_core.autoencoder import images
from hallo3_core.autoencoder import lean as lean_vae
from hallo3_core.autoencoder.images import decode_images, encode_images
from hallo3_core.autoencoder.new_frames import read_new_frames, write_new_frames
from hallo3_core.autoencoder.vae import LATENT_SCALE, autoencoder, decode, encode_in_tiles
from hallo3_core.errors import InputError
from hallo3_core.model.check import check
from hallo3_core.model.loading import load_vae
from hallo3_core.noise import SeededNoise
from parity import FIXTURES


@pytest.fixture(scope="module")
def vae():
    return builtin.load().vae


@pytest.fixture(scope="module")
def latents(vae):
    """Latents of a still portrait: 128 x 192 pixels, 17 frames."""
    pixels = torch.nn.functional.interpolate(examples.portrait()[None], (128, 192)) * 2 - 1
    with torch.no_grad():
        return vae.encode(pixels[:, :, None].repeat(1, 1, 17, 1, 1)).latent_dist.mean


@torch.no_grad()
def test_decoding_in_tiles(vae, latents):
    """The result is close to decoding the whole picture, at the borders of tiles, too.

    Nothing outside of the call sees that tiling is on.
    """
    whole = torch.cat(list(decode(vae, LATENT_SCALE * latents)), dim=2)
    tiling = []
    handle = vae.decoder.register_forward_pre_hook(lambda *_: tiling.append(vae.use_tiling))
    [tiled] = decode(vae, LATENT_SCALE * latents, tiles=2)
    handle.remove()
    assert tiled.shape == whole.shape == (1, 3, 17, 128, 192)
    assert 0 < (tiled - whole).abs().mean() < 0.006
    assert (tiled - whole).abs().max() < 0.1
    assert len(tiling) == 8  # four tiles in two chunks
    assert not any(tiling)


@torch.no_grad()
@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize(("frames", "needed"), [(1, 3), (9, 3), (10, 5), (17, 5)])
def test_no_more_is_decoded_than_is_shown(vae, latents, monkeypatch, frames, needed, tiles):
    """Chunks become nine frames and then eight. What is shown is the same."""
    small, seen = LATENT_SCALE * latents[..., :8, :8], []

    def watched(vae, part, *options):
        seen.append(part.shape[2])
        return decode(vae, part, *options)

    monkeypatch.setattr(images, "decode", watched)
    whole = images.decode_images(vae, small, 17, tiles)
    assert torch.equal(images.decode_images(vae, small, frames, tiles), whole[:frames])
    assert seen == [5, needed]


@torch.no_grad()
def test_encoding_in_tiles(vae, latents):
    pixels = vae.decode(latents).sample
    whole = vae.encode(pixels).latent_dist.mean
    tiled = encode_in_tiles(vae, pixels, (12, 12), (3, 3))
    assert tiled.shape == whole.shape
    assert 0 < (tiled - whole).abs().mean() < 0.03 * whole.std()


@torch.no_grad()
def test_pictures_are_encoded_in_tiles_if_memory_runs_out(vae, latents, monkeypatch, caplog):
    frames = decode_images(vae, LATENT_SCALE * latents, 17)
    noise = SeededNoise(0)
    whole = encode_images(vae, frames, noise.stream("source"))
    assert whole.shape == latents.shape

    def full(*inputs):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(images, "encode", full)
    tiled = encode_images(vae, frames, noise.stream("source"))
    assert caplog.messages == ["Encoding ran out of memory: trying 2 x 2 tiles."]
    assert 0 < (tiled - whole).abs().mean() < 0.1 * whole.std()


@torch.no_grad()
@pytest.mark.parametrize(("frames", "chunks"), [(1, [1]), (2, [8]), (4, [8, 8]), (5, [9, 8])])
def test_any_number_of_latent_frames(vae, frames, chunks):
    decoded = decode(vae, torch.zeros(1, 16, frames, 4, 4))
    assert [pixels.shape[2] for pixels in decoded] == chunks


def renamed(monkeypatch):
    other = type("Upsample3D", (cogvideox.CogVideoXUpsample3D,), {})
    monkeypatch.setattr(cogvideox, "CogVideoXUpsample3D", other)


def without_a_size(monkeypatch):
    made = cogvideox.CogVideoXCausalConv3d.__init__

    def init(self, *args, **kwargs):
        made(self, *args, **kwargs)
        del self.time_pad

    monkeypatch.setattr(cogvideox.CogVideoXCausalConv3d, "__init__", init)


def other_numbers(monkeypatch):
    forward = cogvideox.CogVideoXSpatialNorm3D.forward

    def shifted(self, *args, **kwargs):
        result, cache = forward(self, *args, **kwargs)
        return result + 0.01, cache

    monkeypatch.setattr(cogvideox.CogVideoXSpatialNorm3D, "forward", shifted)


@pytest.fixture
def unknown_diffusers():
    lean_vae.suits_diffusers.cache_clear()
    yield
    lean_vae.suits_diffusers.cache_clear()


@torch.no_grad()
@pytest.mark.parametrize("change", [renamed, without_a_size, other_numbers])
def test_another_diffusers_uses_its_own_layers(unknown_diffusers, monkeypatch, caplog, change):
    change(monkeypatch)
    state = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING), torch.device("meta"):
        first, second = autoencoder(**lean_vae.SMALL), autoencoder(**lean_vae.SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)
    [record] = caplog.records
    assert "twice the memory that the plan says" in record.getMessage()
    for vae in (first, second):
        assert not any(
            isinstance(module, tuple(lean_vae.LEAN.values())) for module in vae.modules()
        )


def test_this_diffusers_is_known(unknown_diffusers, caplog):
    vae = autoencoder(**lean_vae.SMALL)
    kinds = {type(module) for module in vae.modules()}
    assert kinds.issuperset(lean_vae.LEAN.values())
    assert not caplog.records


@pytest.mark.parametrize("prefix", ["", "vae."])
def test_the_files_of_vae_save(tmp_path, prefix):
    """The first Load Hallo3 VAE saved files with this prefix.

    The built-in autoencoder has norms of 8 groups.
    """
    weights = load_file(builtin.WEIGHTS / builtin.VAE_FILE)
    file = tmp_path / "saved.safetensors"
    save_file({prefix + name: value for name, value in weights.items()}, file)
    loaded = load_vae(file)
    assert loaded.config.norm_num_groups == 8
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    assert check(file).kind == "CogVideoX VAE"


def test_a_published_file_with_what_was_trained_beside_it(tmp_path):
    weights = load_file(FIXTURES / "vae_weights.safetensors")
    weights["conditioner.embedders.0.x"] = torch.zeros(2)
    save_file(weights, file := tmp_path / "3d-vae.safetensors")
    report = check(file)
    assert report.kind == "CogVideoX VAE"
    assert report.extra == ["conditioner.embedders.0.x"]


def test_files_that_are_no_autoencoder(tmp_path):
    """Each error names what the file is. None calls it a CogVideoX VAE."""
    whole = {
        f"decoder.mid_block.resnets.0.norm1.conv_y.conv.{part}": 1 for part in ("weight", "bias")
    }
    for names, says in (
        (whole, "is not a whole CogVideoX VAE: download 3d-vae.pt again"),
        (["decoder.mid.attn_1.k.weight"], "is not the CogVideoX VAE but an image VAE"),
    ):
        save_file({name: torch.zeros(1) for name in names}, file := tmp_path / "vae.safetensors")
        with pytest.raises(InputError, match=f"vae.safetensors {says}"):
            load_vae(file)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_latents_say_how_many_frames_are_new(dtype):
    """They say it after Load Latent, too, which converts them to float32.

    The decoded frames do not change.
    """
    latents = torch.randn(1, 16, 13, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert read_new_frames(latents) is None
    for count in (1, 16, 35, 47):
        said = write_new_frames(latents, count)
        assert said.dtype == dtype
        assert read_new_frames(said) == read_new_frames(said.float()) == count
        apart = (said.double() - latents).abs()
        assert (apart <= torch.finfo(dtype).eps * latents.double().abs()).all()
        assert torch.equal(said[:, 1:], latents[:, 1:])
    assert read_new_frames(2 * said + 1) is None
