"""The loop, the losses and the data of the training, on networks of a few numbers."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn

from hallo3_core import builtin
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.layers import rotary_table
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.sampling.schedule import denoiser_alphas
from training import autoencoder, denoiser, examples, finetune
from training.curves import plot
from training.examples import Example, Examples, Shot, motion, prepare
from training.loop import Loop, Settings
from training.networks import Batch, Networks
from training.window import Window, predict, window_on

CONFIG = replace(
    builtin.CONFIG, layers=1, heads=1, latent_height=4, latent_width=6, text_tokens=3, text_width=8
)
SETTINGS = Settings(steps=8, rate=1e-2, matrix_rate=1e-2, warmup=2)


def regression(folder, stop: int = SETTINGS.steps) -> Loop:
    """Learns a matrix and a bias; `stop` cuts the run short, as a crash does."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    loop = Loop(folder, network, SETTINGS)

    def losses(step: int) -> dict[str, torch.Tensor]:
        if step == stop:
            raise InterruptedError
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return {"square": (network(x) - x[:, :2] - 1).pow(2).mean()}

    try:
        loop.run(losses)
    except InterruptedError:
        loop.save()
    return loop


def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does(tmp_path):
    whole = regression(tmp_path / "whole")
    regression(tmp_path / "broken", stop=5)
    resumed = regression(tmp_path / "broken")
    assert resumed.step == 8
    for ours, theirs in zip(whole.average, resumed.average, strict=True):
        assert torch.equal(ours, theirs)


def test_losses_of_what_is_not_trained_on_are_logged(tmp_path):
    network = nn.Linear(1, 1)
    loop = Loop(tmp_path, network, replace(SETTINGS, steps=400))

    def losses() -> dict[str, torch.Tensor]:
        return {"square": (network(torch.ones(1)) - 1).square().sum()}

    loop.run(lambda step: losses(), lambda: {"square": losses()["square"] + 5})
    rows = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "unseen square" in row] == [200, 400]
    assert rows[-1]["unseen square"] == pytest.approx(5, abs=1e-2)
    assert plot(tmp_path).stat().st_size > 10_000


def test_the_average_follows_what_is_trained(tmp_path):
    """1, at first nine tenths of the way to 2, later a quarter of the way to 3."""
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    loop = Loop(tmp_path, network, replace(SETTINGS, average=0.75))
    for loop.step, value in ((0, 2.0), (100, 3.0)):
        nn.init.constant_(network.weight, value)
        loop.follow()
    assert loop.finish().weight.item() == pytest.approx(1.9 + 0.25 * 1.1)


def test_the_learning_rate_rises_and_falls(tmp_path):
    loop = Loop(tmp_path, nn.Linear(1, 1), Settings(steps=1000, rate=1.0, warmup=100))
    shares = []
    for step in (0, 99, 500, 999):
        loop.step = step
        shares.append(loop.share)
    assert shares == pytest.approx([0.01, 0.978, 0.55, 0.1], abs=1e-3)


def test_curves_are_drawn(tmp_path):
    rows = [f'{{"step": {20 * i}, "v": {1 / (i + 1)}, "norm": 1.0}}' for i in range(30)]
    (tmp_path / "losses.jsonl").write_text("\n".join(rows))
    assert plot(tmp_path).stat().st_size > 10_000


def test_normalised_latents_decode_to_the_same():
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(**builtin.VAE).eval()
    frames = np.random.default_rng(0).integers(0, 255, (2, 9, 32, 48, 3), np.uint8)
    pixels = autoencoder.to_pixels(frames)
    with torch.no_grad():
        before = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        autoencoder.normalise(vae, frames)
        latents = vae.encode(pixels).latent_dist.mean
        after = vae.decode(latents).sample
    assert (0.7 * latents).pow(2).mean(dim=(0, 2, 3, 4)) == pytest.approx(np.ones(16), rel=1e-3)
    assert (before - after).abs().max() < 1e-4


@pytest.mark.parametrize("trained", [True, False])
def test_an_encoder_that_is_not_trained_stays_as_it_is(tmp_path, monkeypatch, trained):
    frames = np.random.default_rng(0).integers(0, 255, (2, 9, 32, 48, 3), np.uint8)
    boxes = np.tile(np.array([20.0, 16.0, 28.0, 24.0]), (2, 9, 1))
    monkeypatch.setattr(autoencoder, "pictures", lambda *_: (frames, boxes))
    kinds = ((1, 9, 32, 48),)
    settings = replace(SETTINGS, steps=2)
    stage = autoencoder.Stage("short", kinds, kinds, 0.5, settings, encoder=trained)
    untrained = replace(stage, name="none", settings=replace(SETTINGS, steps=0))
    before, after = (autoencoder.train(tmp_path, (s,)).state_dict() for s in (untrained, stage))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == ({"encoder", "decoder"} if trained else {"decoder"})


def example() -> Example:
    torch.manual_seed(0)
    video, reference, motion = (torch.randn(16, f, 4, 6) for f in (13, 1, 1))
    speech, face = torch.randn(49, 5, 12, 768), torch.zeros(512)
    region, lips = torch.ones(4, 6), torch.zeros(4, 6)
    return Example(video, reference, motion, speech, face, region, lips)


class One(Examples):
    """The same example every time."""

    def __init__(self):
        self.example = example()

    def draw(self, generator) -> Example:
        return self.example


def test_the_target_is_v():
    """x0 = alpha x - sigma v, at every timestep that was drawn, pure noise included."""
    batch = denoiser.draw_batch(One(), replace(denoiser.SPEECH, batch=64), step=3)
    alpha = denoiser_alphas()[batch.timesteps].float().view(-1, 1, 1, 1, 1)
    found = alpha * batch.latents - (1 - alpha**2).sqrt() * batch.target
    assert (found - example().video).abs().max() < 1e-4
    assert batch.latents.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("noise, below, above", [(1, 0.25, 0.25), (2, 0.134, 0.5)])
def test_timesteps_are_uniform_or_oftener_noisy(noise, below, above):
    """Shares of the quarters with the least noise and with the most."""
    stage = replace(denoiser.SPEECH, noise=noise, batch=10_000)
    drawn = denoiser.draw_timesteps(stage, np.random.default_rng(0))
    assert (drawn.min(), drawn.max()) == (0, 999)
    assert (drawn < 250).float().mean().item() == pytest.approx(below, abs=0.02)
    assert (drawn >= 750).float().mean().item() == pytest.approx(above, abs=0.02)


def test_conditions_are_dropped_at_the_published_rates():
    generator, shares = np.random.default_rng(0), finetune.STAGES["speech"].dropped
    shown = example()
    drawn = [denoiser.drop(shown, shares, generator) for _ in range(1000)]
    for name in ("speech", "reference", "motion"):
        dropped = sum(not getattr(row, name).any() for row in drawn)
        assert 30 < dropped < 72, name
    first = sum(bool(row.speech.any()) and not row.speech[:2].any() for row in drawn)
    assert 190 < first < 290


def test_a_stranger_has_the_face_in_the_motion_frames():
    """Where it is known, and nothing else."""
    region = torch.zeros(4, 6)
    region[1:3, 2:4] = 1
    shown = replace(example(), motion=torch.zeros(16, 1, 4, 6), region=region)
    stranger = replace(example(), motion=torch.ones(16, 1, 4, 6))
    found = denoiser.with_face_of(stranger, shown)
    assert torch.equal(found.motion, region.expand(16, 1, 4, 6))
    assert torch.equal(found.reference, shown.reference)
    unknown = replace(shown, region=torch.ones(4, 6))
    assert torch.equal(denoiser.with_face_of(stranger, unknown).motion, shown.motion)


def test_a_strangers_face_is_an_oval():
    """The corners stay: pi / 4 of the box is the stranger's."""
    region = torch.zeros(160, 240)
    region[20:140, 100:160] = 1
    face = denoiser.oval(region)
    assert face.sum().item() == pytest.approx(torch.pi / 4 * 120 * 60, rel=0.01)
    rows, columns = face.any(1).nonzero(), face.any(0).nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 139, 100, 159)


@pytest.mark.parametrize("share", [0, 0.6])
def test_some_examples_have_strangers(share):
    """The face is in the left half of the picture, and has its middle."""
    numbers, speaker = count(), One()
    region = (torch.arange(6) < 3).float().expand(4, 6)
    speaker.draw = lambda generator: replace(
        speaker.example, motion=torch.full((16, 1, 4, 6), float(next(numbers))), region=region
    )
    kept = dict.fromkeys(denoiser.PUBLISHED, 0)
    stage = replace(denoiser.SPEECH, batch=500, dropped=kept, strangers=share)
    own = torch.arange(500.0).view(-1, 1, 1, 1, 1)
    changed = denoiser.draw_batch(speaker, stage, 0).motion != own
    assert changed[..., 1, 1].float().mean().item() == pytest.approx(share, abs=0.06)
    assert not changed[..., 3:].any()
    absent = replace(stage, dropped=kept | {"motion": 1})
    assert not denoiser.draw_batch(speaker, absent, 0).motion.any()


def test_captions_of_some():
    text = torch.ones(3, 8)
    assert denoiser.join_texts([None, None]) is None
    assert torch.equal(
        denoiser.join_texts([None, text]), torch.stack([torch.zeros_like(text), text])
    )


def test_the_first_stage_does_not_hear():
    assert not denoiser.draw_batch(One(), denoiser.IDENTITY, 0).speech.any()
    assert denoiser.draw_batch(One(), denoiser.SPEECH, 0).speech.any()


def test_stages_train_what_they_name(tmp_path):
    """The first one all but the audio modules."""
    torch.manual_seed(0)
    networks = Networks.from_nothing(CONFIG)
    nn.init.normal_(networks.denoiser.head.linear.weight)
    before = {name: p.clone() for name, p in networks.named_parameters()}
    stage = replace(denoiser.IDENTITY, settings=Settings(2, 1e-2, 1e-2, average=0.0), batch=2)
    after = denoiser.train(networks, One(), stage, tmp_path)
    changed = {name for name, p in after.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert not any(map(denoiser.is_audio, changed))


def test_networks_from_nothing_predict_nothing():
    networks = Networks.from_nothing(CONFIG).eval()
    batch: Batch = denoiser.draw_batch(One(), replace(denoiser.SPEECH, batch=2), 0)
    assert not networks(batch).any()
    losses = denoiser.losses(networks, batch)
    assert losses["v"].item() == pytest.approx(batch.target.pow(2).mean().item(), rel=1e-3)


def test_lips_weigh_more():
    """Thirty times more at the one latent pixel that is a mouth."""
    speaker = One()
    speaker.example.lips[1, 2] = 1
    batch = denoiser.draw_batch(speaker, replace(denoiser.SPEECH, batch=2), 0)
    squares = batch.target.square()
    mouth = squares[..., 1, 2].mean().item()
    expected = (24 * squares.mean().item() + 30 * mouth) / (24 + 30)
    losses = denoiser.losses(Networks.from_nothing(CONFIG).eval(), batch)
    assert losses["v"].item() == pytest.approx(expected, rel=1e-3)


WIDE = replace(CONFIG, layers=2, latent_height=12, latent_width=18)


def batch_of(config: Hallo3Config, lips: torch.Tensor) -> Batch:
    torch.manual_seed(0)
    count, size = len(lips), (config.latent_height, config.latent_width)
    latents, target = torch.randn(2, count, 16, 13, *size)
    motion, reference = torch.randn(2, count, 16, 1, *size)
    timesteps = torch.tensor([999, 300])
    speech, text = torch.randn(count, 49, 5, 12, 768), torch.randn(count, 3, 8)
    face = torch.randn(count, 512)
    return Batch(latents, timesteps, target, motion, reference, face, speech, lips, text)


def mouths() -> torch.Tensor:
    lips = torch.zeros(2, 12, 18)
    lips[0, 9:11, 3:7] = lips[1, 5:6, 14:17] = 0.5
    return lips


@torch.no_grad()
def test_a_window_of_everything_is_the_whole():
    torch.manual_seed(0)
    networks = Networks(Denoiser(WIDE), ReferenceNetwork(WIDE), AudioProjector(WIDE))
    batch = batch_of(WIDE, mouths())
    everything = Window(WIDE, torch.zeros(2, 2, dtype=torch.long), torch.arange(3), WIDE.grid)
    whole = networks(batch)
    assert whole.std() > 0.1
    assert (predict(networks, batch, everything) - whole).abs().max() < 1e-5


@torch.no_grad()
def test_tokens_of_a_window_are_at_their_places():
    """Without what layers add, a token knows nothing but its own place and latents."""
    networks = Networks.from_nothing(WIDE)
    nn.init.normal_(networks.denoiser.head.linear.weight)
    batch = batch_of(WIDE, mouths())
    window = window_on(batch.lips, WIDE, np.random.default_rng(0))
    assert len(window.text) == 1
    assert window.corners[0].tolist() != window.corners[1].tolist()
    found, whole = predict(networks, batch, window), networks(batch)
    assert found.shape == (2, 16, 13, 8, 12)
    assert (found - window.crop(whole)).abs().max() < 1e-5
    table = rotary_table(WIDE, 13, torch.device("cpu")).turns[3:]
    row, column = window.corners[1].tolist()
    second = table[54 + (row + 1) * 9 + column]
    assert torch.equal(window.rotary.turns[1, 0, 1 + 24 + 6], second)


def test_windows_hold_the_mouth():
    """Wherever they are, and one that is wider in the middle of it."""
    lips, corners = mouths(), set()
    for seed in range(30):
        window = window_on(lips, WIDE, np.random.default_rng(seed))
        seen = window.crop(lips[:, None, None])
        assert torch.equal(seen.sum((1, 2, 3, 4)), lips.sum((1, 2)))
        corners.add(tuple(window.corners[1].tolist()))
    assert corners == {(0, 3), (1, 3), (2, 3)}
    lips[0, 5, 1:17] = 1
    assert window_on(lips, WIDE, np.random.default_rng(0)).corners[0, 1] == 1


def test_a_stage_sees_windows_at_first_but_for_every_eighth_step(tmp_path):
    stage = replace(denoiser.SPEECH, windows=0.5, settings=replace(SETTINGS, steps=40))
    whole = [step for step in range(40) if not stage.sees_window(step)]
    assert whole == [7, 15, *range(20, 40)]
    networks = Networks.from_nothing(WIDE)
    speaker = One()
    video, reference, motion = (torch.randn(16, f, 12, 18) for f in (13, 1, 1))
    speaker.example = replace(
        speaker.example,
        video=video,
        reference=reference,
        motion=motion,
        region=torch.ones(12, 18),
        lips=mouths()[0],
    )
    denoiser.train(networks, speaker, replace(stage, batch=1, settings=SETTINGS), tmp_path)
    assert networks.denoiser.head.linear.weight.any()


def shot() -> Shot:
    torch.manual_seed(1)
    return Shot(
        frames=torch.rand(3, 49, 32, 48) * 2 - 1,
        portraits=torch.rand(2, 3, 32, 48) * 2 - 1,
        regions=torch.ones(2, 32, 48),
        waveform=torch.randn(98 * 640),
        start=20,
        face=torch.zeros(512),
        lips=torch.ones(32, 48),
    )


def test_motion_frames_have_noise_and_holes_and_the_portrait_has_none():
    generator = torch.Generator().manual_seed(0)
    found = motion(shot(), 1, generator)
    assert torch.equal(found[:, 0], shot().portraits[1])
    holes = (found[:, 1:] == 0).all(dim=(0, 1))
    assert holes.float().mean().item() == pytest.approx(0.1, abs=0.03)
    noise = (found[:, 1:] - shot().frames[:, :2])[:, :, ~holes]
    assert 0.01 < noise.std() < 0.3


class Twice:
    def __init__(self, name: str):
        self.name = name

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Shot:
        return shot()

    def title(self, index: int) -> str:
        return f"{self.name} {index}"


def test_shots_are_encoded_once_and_others_anew(tmp_path, monkeypatch):
    """Here in this process."""
    model = builtin.load()
    monkeypatch.setattr(examples, "DataLoader", lambda shots, **_: [*shots])

    def encoded(name: str) -> tuple[Examples, list[int]]:
        made = prepare(tmp_path, Twice(name), model.vae, model.speech_encoder)
        return made, [file.stat().st_mtime_ns for file in made.files]

    shots, made = encoded("one")
    assert encoded("one")[1] == made
    of_others = encoded("two")[1]
    assert not set(of_others) & set(made)
    model.vae.decoder.conv_out.conv.bias.data += 0.1
    assert encoded("two")[1] == of_others
    model.vae.encoder.conv_out.conv.bias.data += 0.1
    assert not set(encoded("two")[1]) & set(of_others)
    drawn = shots.draw(np.random.default_rng(0))
    assert drawn.video.shape == (16, 13, 4, 6)
    assert drawn.reference.shape == drawn.motion.shape == (16, 1, 4, 6)
    assert drawn.speech.shape == (49, 5, 12, 768)
    assert torch.equal(drawn.region, torch.ones(4, 6))
