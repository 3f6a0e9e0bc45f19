"""LoRA and full fine-tuning in little memory: what is kept how, and that nothing else changes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hallo3_core import builtin
from hallo3_core.checkpoints.reading import read_weights
from hallo3_core.errors import InputError
from hallo3_core.memory.plan import GB, RESERVED
from hallo3_core.model import convert
from hallo3_core.model.finding import TRANSFORMER_FILE
from hallo3_core.model.loading import load_transformers
from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.layers import attention
from hallo3_core.quantization.linear import QuantizedLinear
from training import __main__ as command_line
from training import denoiser, loop
from training.export import save_lora, save_networks
from training.finetune import STAGES, bytes_needed, is_scaled, make_ready, require_room
from training.loop import Settings
from training.networks import Batch, Networks
from training_data import CONFIG, One, random_batch

TAKES = {
    ("speech", 16, False): 37.0,
    ("identity", 16, False): 41.2,
    ("speech", 16, True): 25.1,
    ("identity", 16, True): 29.3,
    ("speech", None, False): 72.9,
}
"""GB, as docs/training.md has them."""


def networks_of_the_pack(dtype: torch.dtype = torch.float32) -> Networks:
    model = builtin.load().to(dtype)
    return Networks(model.denoiser, model.reference_network, model.audio_projector)


def gradients(networks: Networks, batch: Batch) -> dict[str, Tensor]:
    networks.zero_grad()
    networks(batch, attention).square().mean().backward()
    found = {name: p.grad for name, p in networks.named_parameters()}
    return {name: value.clone() for name, value in found.items() if value is not None}


@pytest.mark.parametrize("rank", [4, None])
def test_layers_that_are_computed_again_have_the_same_gradients(monkeypatch, rank):
    """Of a LoRA, and of all weights of the stage, those of the reference network among them."""
    torch.manual_seed(0)
    networks, save_memory = networks_of_the_pack(), Networks.save_memory
    monkeypatch.setattr(Networks, "save_memory", lambda networks: None)
    make_ready(networks, STAGES["identity"], rank)
    for name, parameter in networks.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    batch = random_batch(networks)
    kept = gradients(networks, batch)
    save_memory(networks)
    again = gradients(networks, batch)
    assert any(name.startswith("reference_network") for name in kept) == (rank is None)
    assert all(value.any() for name, value in kept.items() if "lora" in name)
    for name, value in kept.items():
        assert (again[name] - value).abs().max() <= 1e-6 * value.abs().max(), name


def test_a_lora_is_float32_and_the_rest_is_not():
    networks = networks_of_the_pack(torch.bfloat16)
    stage = make_ready(networks, STAGES["identity"], 4)
    assert stage.name == "identity_lora_4"
    for name, parameter in networks.named_parameters():
        expected = torch.float32 if "lora_" in name else torch.bfloat16
        assert (parameter.dtype, parameter.requires_grad) == (expected, "lora_" in name), name
    assert not any("lora_" in name for name, _ in networks.reference_network.named_parameters())


def test_all_weights_of_a_stage_are_float32_and_the_rest_is_not():
    networks = networks_of_the_pack(torch.bfloat16)
    make_ready(networks, STAGES["speech"], None)
    for name, parameter in networks.named_parameters():
        trained = denoiser.is_audio(name)
        expected = torch.float32 if trained else torch.bfloat16
        assert (parameter.dtype, parameter.requires_grad) == (expected, trained), name


def small_run(folder, steps: int = 6) -> dict[str, Tensor]:
    """A LoRA of rank 2 of small networks, trained for so many steps of six."""
    torch.manual_seed(0)
    networks = Networks.empty(CONFIG)
    settings = Settings(6, 1e-2, warmup=1)
    stage = make_ready(networks, replace(STAGES["identity"], settings=settings, batch=1), 2)
    trained = denoiser.train(networks, One(), stage, folder)
    return {name: p for name, p in trained.denoiser.state_dict().items() if "lora_" in name}


def test_a_lora_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """Where its folder says, with the weights of a run that was not."""
    whole = small_run(tmp_path / "whole")
    draw = denoiser.draw_batch
    seen = []

    def drawn(examples, stage, step: int) -> Batch:
        seen.append(step)
        if len(seen) == 4:
            raise InterruptedError
        return draw(examples, stage, step)

    monkeypatch.setattr(denoiser, "draw_batch", drawn)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(InterruptedError):
        small_run(tmp_path / "broken")
    resumed = small_run(tmp_path / "broken")
    assert seen == [0, 1, 2, 3, 3, 4, 5]
    assert all(value.any() for value in whole.values())
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_examples_that_are_never_trained_on_come_one_by_one(monkeypatch):
    """And their loss is that of all at once."""
    networks, sizes = Networks.from_nothing(CONFIG).eval(), []
    stage = replace(STAGES["speech"], batch=5)
    batch = denoiser.draw_batch(One(), stage, 0)
    batch = replace(batch, text=torch.ones(5, 3, 8), target=torch.randn(batch.target.shape))
    whole = denoiser.losses(networks, batch)["v"].item()
    count = denoiser.losses
    monkeypatch.setattr(
        denoiser, "losses", lambda nets, part: sizes.append(len(part)) or count(nets, part)
    )
    parts = batch.split(2)
    assert denoiser.mean_losses(networks, parts)["v"].item() == pytest.approx(whole, rel=1e-5)
    assert sizes == [2, 2, 1]
    assert torch.equal(parts[1].target, batch.target[2:4])
    assert [part.text.shape for part in parts] == [(2, 3, 8), (2, 3, 8), (1, 3, 8)]
    assert replace(batch, text=None).split(3)[1].text is None


def test_a_lora_of_an_fp8_model(tmp_path):
    """Its matrices stay in fp8, and the LoRA has gradients."""
    networks = networks_of_the_pack()
    save_networks(networks, tmp_path, tmp_path / "models")
    source = tmp_path / TRANSFORMER_FILE
    plan = convert.plan(source, read_weights(source), "fp8_e4m3fn")
    file, *_ = convert.convert(plan, tmp_path / "fp8", lambda done: None)
    scaled = Networks(*load_transformers(file, torch.bfloat16))
    assert is_scaled(scaled)
    assert not is_scaled(networks)
    make_ready(scaled, STAGES["speech"], 4)
    kept = [m.weight.dtype for m in scaled.modules() if isinstance(m, QuantizedLinear)]
    assert set(kept) == {torch.float8_e4m3fn}
    with torch.autocast("cpu", torch.bfloat16):
        scaled(random_batch(scaled), attention).float().square().mean().backward()
    found = [p.grad for name, p in scaled.named_parameters() if "lora_B" in name]
    assert all(value.isfinite().all() and value.any() for value in found)
    save_lora(scaled.denoiser, tmp_path / "lora.safetensors")
    assert all("base_layer" not in name for name in read_weights(tmp_path / "lora.safetensors"))


@pytest.mark.parametrize(("stage", "rank", "scaled"), TAKES)
def test_the_released_model_fits(stage, rank, scaled):
    """All layers take the same: of 42 what of two and of three is known."""
    two, three = (
        bytes_needed(Hallo3Config(layers=layers), replace(STAGES[stage], batch=1), rank, scaled)
        for layers in (2, 3)
    )
    whole = (two + 40 * (three - two)) / GB
    assert whole == pytest.approx(TAKES[stage, rank, scaled], rel=0.1)
    card = 32 if scaled else 48 if rank else 80
    assert whole < card - RESERVED / GB


def test_a_card_that_is_too_small():
    require_room(30 * GB, 40 * GB, 16)
    with pytest.raises(InputError, match=r"takes 41\.2 GB .* 39\.0 GB are free: .* fp8 model"):
        require_room(41.2 * GB, 39 * GB, 16)
    with pytest.raises(InputError, match="--lora 16"):
        require_room(72.9 * GB, 39 * GB, None)


@pytest.mark.parametrize("option", ["--lora", "--batch", "--steps"])
@pytest.mark.parametrize("value", ["0", "-3", "x"])
def test_numbers_that_make_no_sense(monkeypatch, capsys, option, value):
    given = ["training", "finetune", "run", "--clips", "clips", option, value]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(SystemExit):
        command_line.parse()
    assert f"{value} is not 1 or more" in capsys.readouterr().err
