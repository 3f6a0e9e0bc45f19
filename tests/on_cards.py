"""Clips that teams of cards make. Each process runs `python on_cards.py FOLDER PORTS`."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.cards import Sent, Work
from hallo3_core import builtin, examples
from hallo3_core.animate import ModelAnimator
from hallo3_core.autoencoder.vae import autoencoder
from hallo3_core.clip.segments import make_segments
from hallo3_core.errors import InputError
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.conditioning import AudioProjector
from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.transformer import Denoiser, ReferenceNetwork
from hallo3_core.noise import SeededNoise
from hallo3_core.parallel.lead import LeadingAnimator, dismiss, follow
from hallo3_core.parallel.team import Team, joined
from hallo3_core.parallel.wire import announce
from hallo3_core.portrait.encode import Identity, encode_portrait
from hallo3_core.speech.dialogue import Dialogue, Speaker
from hallo3_core.speech.encode import Speech, encode_speech

MIDDLE = Hallo3Config(
    layers=2,
    heads=12,
    head_width=16,
    time_width=32,
    text_tokens=21,
    text_width=64,
    latent_height=10,
    latent_width=14,
    audio_hidden=16,
    audio_tokens=2,
    audio_width=16,
    face_width=16,
)
"""Its heads divide by 2, 3 and 4. Its 21 text tokens and 35 tokens of a frame do not."""
FRAMES, SIZES = 50, (2, 3, 4)
ROOM = 12, 8, 2
"""Widths of tiles, in latents, for which process 1 has memory. The last is too small."""


@cache
def model_of(name: str) -> Hallo3:
    """The built-in transformers or random ones, with an autoencoder that is quick."""
    torch.manual_seed(1)
    made = {"vae": autoencoder(**builtin.VAE | {"block_out_channels": (8, 8, 16, 16)})}
    if name == "middle":
        networks = {"denoiser": Denoiser, "reference_network": ReferenceNetwork}
        networks["audio_projector"] = AudioProjector
        made |= {name: network(MIDDLE) for name, network in networks.items()}
    for network in made.values():
        network.eval().requires_grad_(False)
    return replace(builtin.load(distilled=False), **made)


@dataclass(frozen=True)
class Case:
    """A clip of two segments on `cards` cards. `split` is as in `LeadingAnimator`."""

    name: str
    model: str
    cards: int
    split: bool | None = None
    people: int = 1
    rows: int = 1
    settings: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def reference(self) -> "Case":
        """The same clip on one card."""
        return replace(self, name="", cards=1, split=None, rows=1)


PROMPTED = {"text_guidance": 2.0}
STRONG = {"identity_strength": 0.7, "speech_strength": 0.9}
SDE, DDIM = {"sampler": "sde-dpm++2m"}, {"sampler": "ddim", "interval": (0.0, 0.5)}
CASES = (
    Case("built-in, a branch each", "built-in", 2, settings=SDE),
    Case("built-in, half of the tokens each", "built-in", 2, split=False, rows=2, settings=SDE),
    Case("three branches on two cards", "middle", 2, settings=PROMPTED),
    Case("two people on two cards", "middle", 2, split=False, people=2, settings=STRONG),
    Case("two people on three cards", "middle", 3, people=2, settings=STRONG),
    Case("without guidance on three cards", "middle", 3, settings={"guidance": 1.0}),
    Case("built-in, both", "built-in", 4, settings=SDE),
    Case("middle, both", "middle", 4, people=2, settings=STRONG),
    Case("tokens on four cards", "middle", 4, split=False, rows=2, settings=SDE),
    Case("guidance in a part of the steps", "middle", 4, settings=DDIM),
)


@cache
@torch.no_grad()
def inputs_of(name: str, people: int) -> tuple[Identity, Speech | Dialogue]:
    model = model_of(name)
    networks = model.vae, model.reference_network
    identity = encode_portrait(*networks, examples.portrait(), None, SeededNoise(0))
    waveform = torch.randn(FRAMES * 640, generator=torch.Generator().manual_seed(0)) / 10
    speech = encode_speech(model.speech_encoder, waveform)
    if people == 1:
        return identity, speech
    regions = torch.zeros(2, 512, 512)
    regions[0, :, :200], regions[1, :, 260:] = 1, 1
    face = torch.randn(1, 512, generator=torch.Generator().manual_seed(1))
    speakers = Speaker(speech, regions[0], face), Speaker(speech, regions[1], start=9)
    return identity, Dialogue(speakers)


def clip(case: Case, animator_of: Callable[..., ModelAnimator] = ModelAnimator) -> torch.Tensor:
    """The latents of two segments."""
    model = replace(model_of(case.model), rows=case.rows)
    identity, speech = inputs_of(case.model, case.people)
    config = model.config
    shape = 1, config.text_tokens, config.text_width
    text = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    given = {"steps": 2, "text": text} | case.settings
    animator = animator_of(model, identity, speech, SeededNoise(0), **given)
    made = make_segments(animator, identity, speech, frames=True)
    return torch.cat([segment.latents for segment in made][:2])


@torch.no_grad()
def sent(work: Work, groups: int) -> tuple[int, int]:
    """Bytes that this process sends for a step, and for the announcement of its latents."""
    with work.step(groups) as step, Sent() as counted:
        step()
    with Sent() as told:
        announce((work.latents, torch.tensor(500)))
    return counted.bytes, told.bytes


def small_latents() -> torch.Tensor:
    return torch.randn(1, 16, 13, 8, 12, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def decoded(team: Team, smallest: int) -> torch.Tensor | str:
    """The frames of `small_latents`, or the error of process 0.

    Process 1 has memory only for tiles of `smallest` latents. It notices when it has received and
    sent the frames of some convolutions, but not of all.
    """
    model = model_of("middle")

    def full(module, inputs) -> None:
        if not inputs[0].is_meta and inputs[0].shape[-1] > 2 * smallest:
            raise torch.OutOfMemoryError

    hook = model.vae.decoder.up_blocks[1].register_forward_pre_hook(full)
    if dist.get_rank() != 1:
        hook.remove()
    try:
        if dist.get_rank():
            follow(team, lambda: model)
            return ""
        identity, speech = inputs_of("middle", 1)
        animator = LeadingAnimator(team, None, model, identity, speech, SeededNoise(0))
        return animator.decode(0, small_latents(), 45)
    except InputError as error:
        return f"{error}"
    finally:
        if not dist.get_rank():
            dismiss()
        hook.remove()


def work_in(team: Team) -> dict[str, Any]:
    """What this process finds: the latents of each case, and what it sent in a step."""
    found: dict[str, Any] = {}
    leads = dist.get_rank() == 0
    for case in (case for case in CASES if case.cards == team.size):
        if leads:
            found[case.name] = clip(case, partial(LeadingAnimator, team, case.split))
            dismiss()
        else:
            follow(team, lambda case=case: replace(model_of(case.model), rows=case.rows))
    found["decoded"] = {smallest: decoded(team, smallest) for smallest in ROOM}
    work, groups = Work(team, MIDDLE), (1, 2) if team.size % 2 == 0 else (1,)
    found["sent"] = {each: sent(work, each) for each in groups}
    return found


def main(folder: Path, ports: list[str]) -> None:
    """Make teams of 2, 3 and 4 processes, one after the other."""
    rank = int(os.environ["RANK"])
    for size, port in zip(SIZES, ports, strict=True):
        os.environ |= {"WORLD_SIZE": f"{size}", "MASTER_PORT": port}
        if rank < size:
            with joined(torch.device("cpu")) as team:
                torch.save(work_in(team), folder / f"{rank}_of_{size}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
