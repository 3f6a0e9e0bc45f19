"""One clip on several cards: processes of gloo on the CPU give the numbers of one card."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from benchmarks.cards import dealt_bytes, exchanged_bytes, free_port, launch
from hallo3_core.autoencoder.images import decode_images
from hallo3_core.errors import BAD_INPUT, InputError
from hallo3_core.parallel.branches import guidance_groups
from hallo3_core.parallel.chunks import OneRanOut
from hallo3_core.parallel.team import own_device
from hallo3_core.parallel.tokens import parts
from hallo3_core.settings import Settings
from on_cards import CASES, MIDDLE, ROOM, SIZES, Case, clip, model_of, small_latents

ROOT = Path(__file__).parents[2]
PATH = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"


@contextmanager
def ended(processes: list[subprocess.Popen]) -> Iterator[list[subprocess.Popen]]:
    """Leave no process running."""
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the processes of each team have found. The teams have the same processes."""
    folder = tmp_path_factory.mktemp("cards")
    words = ROOT / "tests" / "on_cards.py", folder, *(free_port() for _ in SIZES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)
        with ended(launch(max(SIZES), *words)) as processes:
            assert not any(process.wait(timeout=300) for process in processes)
    return folder


@pytest.fixture(params=SIZES)
def made(request, folder) -> list[dict]:
    """What each process of a team has found."""
    return [torch.load(folder / f"{rank}_of_{request.param}.pt") for rank in range(request.param)]


@cache
def one_card(case: Case) -> torch.Tensor:
    return clip(case)


def test_latents_are_those_of_one_card(made):
    for case in CASES:
        if case.cards == len(made):
            expected = one_card(case.reference)
            assert len(expected) == 2
            assert (made[0][case.name] - expected).abs().max() < 1e-4, case


def test_a_branch_on_each_card_changes_no_bit(made):
    if len(made) == 2:
        case = CASES[0]
        assert torch.equal(made[0][case.name], one_card(case.reference))


def test_if_memory_runs_out_on_a_card_all_try_smaller_tiles(made):
    """The bits are those of one card with as many tiles."""
    found = made[0]["decoded"]
    for room, tiles in zip(ROOM, (1, 2), strict=False):
        vae = model_of("middle").vae
        assert torch.equal(found[room], decode_images(vae, small_latents(), 45, tiles))
    assert found[2].startswith("There is not enough memory to decode on several cards: close")
    assert all(not any(each["decoded"].values()) for each in made[1:])


def test_a_card_that_runs_out_of_memory_outside_of_the_relay_does_not_try_again():
    """The others could not know of it, and would wait for ever."""

    def full(vae, latents):
        raise torch.OutOfMemoryError("alone")

    vae = model_of("middle").vae
    with pytest.raises(torch.OutOfMemoryError, match="alone"):
        decode_images(vae, small_latents(), 45, chunks=full, full=OneRanOut)


def test_what_is_sent_is_as_in_the_documentation(made):
    latents = 4 * 16 * 13 * MIDDLE.latent_height * MIDDLE.latent_width
    for groups in made[0]["sent"]:
        cards = len(made) // groups
        steps, told = zip(*(each["sent"][groups] for each in made), strict=True)
        expected = 2 * exchanged_bytes(MIDDLE, cards, size=4)
        if groups == 2:
            expected += dealt_bytes(MIDDLE, cards)
        assert sum(steps) == expected
        others = (len(made) - 1) * latents
        assert others < told[0] < others + 4000 * len(made)
        assert not any(told[1:])


@pytest.mark.parametrize(
    ("cards", "guidance", "wanted", "found"),
    [
        (2, 3.5, None, 2),
        (2, 3.5, False, 1),
        (2, 1.0, None, 1),
        (3, 3.5, None, 1),
        (8, 3.5, None, 2),
        (2, 1.0, True, "Guidance is 1, so there is only one branch: leave out --split-guidance."),
        (3, 3.5, True, "3 cards cannot share two branches equally: leave out --split-guidance,"),
        (5, 3.5, None, "5 cards cannot share the 48 heads of the model equally: take one of"),
        (10, 3.5, None, "10 cards cannot share the 48 heads of the model equally: take one of"),
    ],
)
def test_how_cards_share_the_branches(cards, guidance, wanted, found):
    arguments = cards, 48, Settings(guidance=guidance), wanted
    if isinstance(found, int):
        assert guidance_groups(*arguments) == found
    else:
        with pytest.raises(InputError, match=re.escape(found)):
            guidance_groups(*arguments)


@pytest.mark.parametrize("count", [0, 5, 35, 226, 1350])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 16])
def test_parts_are_almost_equal(count, size):
    found = parts(count, size)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(count))
    assert {part.stop - part.start for part in found} <= {count // size, -(-count // size)}


def test_each_process_has_a_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}
    for variable, value in (started | {"LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(variable, value)
    assert (own_device("cpu"), own_device("cuda")) == ("cpu", "cuda:1")
    with pytest.raises(InputError, match="--device cuda:1 is one card, but torchrun has started 3"):
        own_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="on a machine with 2 cards: give --nproc-per-node 2"):
        own_device("cuda")


class Run(NamedTuple):
    status: int
    printed: str
    complaints: str


def told(process: subprocess.Popen) -> Run:
    printed, complaints = process.communicate(timeout=200)
    return Run(process.returncode, printed, complaints)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start `animate` in two processes, and stop them at the end."""
    monkeypatch.setenv("PYTHONPATH", PATH)
    usual = "-m", "hallo3_core", "animate", "--quiet", "--output", tmp_path / "o.mp4"
    with ExitStack() as stack:

        def start(*words: object) -> list[subprocess.Popen]:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            return stack.enter_context(ended(launch(2, *usual, *words, **pipes)))

        yield start


def test_a_process_that_dies_ends_all_and_what_is_done_stays(start, tmp_path):
    """The store has the first of two segments, and the next run continues with it."""
    words = "--undistilled", "--steps", 4, "--to", 2.2
    first, second = start(*words)
    while not list((tmp_path / "segments").glob("*.piece")):
        assert first.poll() is None
        time.sleep(0.02)
    second.kill()
    status, printed, complaints = told(first)
    assert (status, printed) == (BAD_INPUT, "")
    assert complaints == (
        "error: Another process of this run has ended, so this one stops, too. Start again to "
        f"continue. The finished part is in {tmp_path / 'o.unfinished.mp4'}.\n"
    )
    first, second = map(told, start(*words))
    assert first.printed.splitlines() == [
        f"{tmp_path / 'o.mp4'}: 2.20 s, 55 frames",
        "1 of 2 segments were kept from an earlier run.",
    ]
    assert second == (0, "", "")


def test_only_one_process_says_what_is_wrong(start, tmp_path):
    first, second = map(told, start("--portrait", tmp_path / "missing.png"))
    assert first.status == BAD_INPUT
    assert first.complaints.startswith("error: ") and first.complaints.count("\n") == 1
    assert second == (BAD_INPUT, "", "")
