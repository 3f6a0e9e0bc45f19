"""What a segment of the released model costs on one card and on several, on paper.

`python -m benchmarks.scale` prints the tables of docs/scale.md. Nothing is computed: tensors are on
the meta device, and torch's fake process group stands for the other cards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hallo3_core.autoencoder import vae
from hallo3_core.network.config import FPS, LATENT_FRAMES, NEW_FRAMES, Hallo3Config
from hallo3_core.network.transformer import Conditions, Denoiser, run_layer
from hallo3_core.parallel.tokens import Ulysses
from training.peak import Peak

from .cards import Sent, dealt_bytes

CONFIG, DTYPE, STEPS = Hallo3Config(), torch.bfloat16, 50
SEGMENT = NEW_FRAMES / FPS
HOURS = 1000
GB, PETA = 10**9, 10**15
SHAPES = {1: (1,), 2: (2, 1), 3: (1,), 4: (2, 1), 6: (2,), 8: (2,), 16: (2,)}
"""For each number of cards, how many groups of them can share the branches of guidance."""


@dataclass(frozen=True)
class Device:
    """Numbers of the maker: bf16 products without sparsity, and a link in one direction."""

    name: str
    flops: float
    link: float


DEVICES = (
    Device("RTX 4090, PCIe 4.0", 165e12, 32e9),
    Device("H100, NVLink", 989e12, 450e9),
)


@dataclass(frozen=True)
class Call:
    """A call of the denoiser on one of the cards that share its tokens.

    Its FLOPs, the bytes that the card sends, and the bytes of its tensors beside the weights. These
    are the peak of the call, and what is kept for each branch.
    """

    flops: int
    sent: int
    peak: float
    kept: float


@cache
@torch.no_grad()
def denoiser_call(cards: int) -> Call:
    """A call on the last of the cards, which never has fewer tokens than others."""
    dist.init_process_group("fake", store=FakeStore(), rank=cards - 1, world_size=cards)
    split = Ulysses(CONFIG, dist.group.WORLD)
    with torch.device("meta"):
        denoiser = Denoiser(CONFIG, dtype=DTYPE)
        conditions, latents = inputs(denoiser, split)
        call = partial(split, denoiser, latents, torch.zeros(1), conditions)
        with FlopCounterMode(display=False) as counter, Sent() as sent:
            call()
        with Peak(denoiser) as peak, mock.patch("hallo3_core.parallel.tokens.attention", flash):
            plain = partial(run_layer, attend=flash)
            denoiser(latents, torch.zeros(1), conditions, plain) if cards == 1 else call()
    dist.destroy_process_group()
    kept = tree_leaves([conditions.reference, conditions.face, conditions.audio])
    storages = {each.untyped_storage()._cdata: each.untyped_storage() for each in kept}
    kept_bytes = sum(storage.nbytes() for storage in storages.values())
    return Call(counter.get_total_flops(), sent.bytes, peak.bytes, kept_bytes)


def inputs(denoiser: Denoiser, split: Ulysses) -> tuple[Conditions, Tensor]:
    """The conditions of a branch on this card, and the latents."""
    empty = partial(torch.empty, dtype=DTYPE)
    latents = empty(1, 16, LATENT_FRAMES, CONFIG.latent_height, CONFIG.latent_width)
    features = [empty(1, CONFIG.frame_tokens, CONFIG.width)] * CONFIG.layers
    conditions = denoiser.conditions(
        empty(1, CONFIG.text_tokens, CONFIG.text_width),
        latents,
        map(split.own_heads, denoiser.reference_keys_values(features)),
        denoiser.face_keys_values(empty(1, CONFIG.face_channels)),
        empty(1, LATENT_FRAMES, CONFIG.audio_tokens, CONFIG.audio_width),
    )
    return conditions, latents


def flash(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention whose memory is its result, which torch does not have on the meta device."""
    return torch.empty_like(query)


@cache
@torch.no_grad()
def chunks() -> tuple[list[int], int]:
    """The FLOPs of decoding each chunk, and the bytes that one passes on to the next."""
    with torch.device("meta"):
        network = vae.autoencoder(**vae.RELEASED).to(DTYPE)
        latents = torch.empty(
            1, 16, LATENT_FRAMES, CONFIG.latent_height, CONFIG.latent_width, dtype=DTYPE
        )
        flops, before = [], None
        for span in vae.chunk_spans(network, LATENT_FRAMES):
            with FlopCounterMode(display=False) as counter:
                _, before = network.decoder(latents[:, :, span], conv_cache=before)
            flops.append(counter.get_total_flops())
    passed = sum(each.nbytes for each in tree_leaves(before) if isinstance(each, Tensor))
    return flops, passed


@dataclass(frozen=True)
class Fleet:
    """`groups` of `tokens` cards each: the groups share the branches, and each its tokens."""

    groups: int
    tokens: int

    @property
    def cards(self) -> int:
        return self.groups * self.tokens

    @property
    def calls(self) -> int:
        """Calls of a card in a guided step."""
        return 2 // self.groups

    @property
    def sampling(self) -> float:
        """FLOPs of a card for the steps of a segment."""
        return STEPS * self.calls * denoiser_call(self.tokens).flops

    @property
    def decoding(self) -> int:
        """FLOPs of the busiest card for decoding a segment."""
        each = chunks()[0]
        return max(sum(each[card :: self.cards]) for card in range(self.cards))

    @property
    def sent(self) -> float:
        """Bytes that a card sends in a guided step."""
        dealt = dealt_bytes(CONFIG, self.tokens) / self.cards if self.groups == 2 else 0
        return self.calls * denoiser_call(self.tokens).sent + dealt

    @property
    def passed(self) -> float:
        """Bytes that the busiest card passes on in decoding."""
        if self.cards == 1:
            return 0
        each, passed = chunks()
        return passed * len(range(0, len(each) - 1, self.cards))

    @property
    def memory(self) -> float:
        call = denoiser_call(self.tokens)
        return call.peak + self.calls * call.kept

    def seconds(self, device: Device) -> tuple[float, float]:
        """The least seconds of a segment for arithmetic, and for what is sent."""
        arithmetic = (self.sampling + self.decoding) / device.flops
        return arithmetic, (STEPS * self.sent + self.passed) / device.link


def fleets() -> Iterator[Fleet]:
    for cards, shapes in SHAPES.items():
        for groups in shapes:
            yield Fleet(groups, cards // groups)


def main() -> None:
    print(
        "| cards | groups x cards | calls | PFLOP | sent a step, GB | decoding | GB passed | GB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for fleet in fleets():
        cells = (
            f"{fleet.cards}",
            f"{fleet.groups} x {fleet.tokens}",
            f"{fleet.calls}",
            f"{fleet.sampling / PETA:.2f}",
            f"{fleet.sent / GB:.2f}",
            f"{fleet.decoding / PETA:.3f}",
            f"{fleet.passed / GB:.1f}",
            f"{fleet.memory / GB:.2f}",
        )
        print("| " + " | ".join(cells) + " |", flush=True)
    for device in DEVICES:
        print(f"\n{device.name}\n| cards | groups x cards | arithmetic | sending | sum | faster |")
        print("|---|---|---|---|---|---|")
        alone = sum(Fleet(1, 1).seconds(device))
        for fleet in fleets():
            parts = fleet.seconds(device)
            cells = [f"{fleet.cards}", f"{fleet.groups} x {fleet.tokens}"]
            cells += [f"{part:.1f}" for part in (*parts, sum(parts))]
            print("| " + " | ".join([*cells, f"{alone / sum(parts):.1f}"]) + " |")
        segments = HOURS * 3600 / SEGMENT
        days = segments * alone / 86400
        print(f"{segments:,.0f} segments for {HOURS} hours: {days:,.0f} days of a card")


if __name__ == "__main__":
    main()
