"""Cut, damaged or hostile weights files give one sentence, and nothing is written."""

import json
import random
import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_convert import CONFIG, published, run

from hallo3_core.errors import InputError
from hallo3_core.model.check import check
from hallo3_core.model.loading import load_transformers
from hallo3_core.network.weight_formats import BY_NAME, STORED
from hallo3_core.quantization.stored import HEADER, MARK, as_bytes

SMALL = replace(CONFIG, layers=2, text_width=16, latent_height=4, latent_width=6)
KINDS = ("published", *STORED)
QUANTISED = [name for name in STORED if BY_NAME[name].layout]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A published file, and the denoisers converted from it."""
    folder = tmp_path_factory.mktemp("files")
    source = folder / "mp_rank_00_model_states.pt"
    torch.save({"module": published(SMALL)}, source)
    converted = {dtype: run(source, folder / dtype, dtype)[0] for dtype in KINDS[1:]}
    return {"published": source} | converted


def damaged(file: Path, folder: Path, content: bytes) -> Path:
    """A file with other content, and links to its companions in the same folder."""
    for other in file.parent.glob("*.safetensors"):
        (folder / other.name).hardlink_to(other)
    target = folder / file.name
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    return target


def header(file: Path) -> list[int]:
    """The positions of the bytes that describe the content of the file."""
    if file.suffix == ".safetensors":
        return list(range(8 + struct.unpack("<Q", file.open("rb").read(8))[0]))
    with ZipFile(file) as archive:
        index = next(item for item in archive.infolist() if item.filename.endswith("data.pkl"))
        start = index.header_offset
        contents = range(start, start + index.file_size)
        return [*contents, *range(archive.start_dir, file.stat().st_size)]


def refused(file: Path, folder: Path) -> None:
    """Every reader of the file raises one sentence, and a conversion leaves no file behind."""
    for read in (load_transformers, check, lambda path: run(path, folder / "models")):
        with pytest.raises(InputError) as error:
            read(file)
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)
    assert not (folder / "models").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_cut_short_anywhere(files, kind, tmp_path):
    content = files[kind].read_bytes()
    generator = random.Random(7)
    path = damaged(files[kind], tmp_path, content)
    for _ in range(20):
        path.write_bytes(content[: generator.randrange(len(content))])
        refused(path, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_of_the_header_is_flipped(files, kind, tmp_path):
    """The file is refused. If the bit has no meaning, the same numbers are loaded."""
    content, places = bytearray(files[kind].read_bytes()), header(files[kind])
    expected = load_transformers(files[kind])
    generator = random.Random(8)
    path = damaged(files[kind], tmp_path, content)
    count = 0
    for _ in range(50):
        spoiled, place = content.copy(), generator.choice(places)
        spoiled[place] ^= 1 << generator.randrange(8)
        path.write_bytes(spoiled)
        try:
            found = load_transformers(path)
        except InputError as error:
            assert "\n" not in str(error)
            count += 1
            continue
        for ours, theirs in zip(found, expected, strict=True):
            for name, value in theirs.state_dict().items():
                assert torch.equal(ours.state_dict()[name].float(), value.float())
    assert count >= 30


def edited(file: Path, folder: Path, change: Callable[[dict, dict], None]) -> Path:
    """A file after a change of its tensors and its metadata, with its companions."""
    weights, found = load_file(file), metadata(file)
    change(weights, found)
    path = damaged(file, folder, b"")
    save_file(weights, path, found)
    return path


def first_scale(weights: dict) -> str:
    return next(name for name in weights if re.search(r"weight_(scale|s_rel)$", name))


def cut_scale(weights: dict, found: dict) -> None:
    name = first_scale(weights)
    value = weights[name]
    weights[name] = value[:-1].contiguous() if value.ndim else torch.ones(3)


def transpose_scale(weights: dict, found: dict) -> None:
    name = first_scale(weights)
    shape = weights[name].shape
    weights[name] = weights[name].reshape(*shape[::-1], 1) if shape else torch.ones(2, 1)


def drop_scale(weights: dict, found: dict) -> None:
    del weights[first_scale(weights)]


def name_unknown(weights: dict, found: dict) -> None:
    """Other words in the marks, and no marks in the header."""
    del found[HEADER]
    for name in weights:
        if name.endswith(MARK):
            weights[name] = as_bytes({"format": "int3"})


def contradict(weights: dict, found: dict) -> None:
    """The header names another layout than the marks."""
    found[HEADER] = found[HEADER].replace('"format": "', '"format": "x')


def drop_marks(weights: dict, found: dict) -> None:
    del found[HEADER]
    for name in [name for name in weights if name.endswith(MARK)]:
        del weights[name]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (cut_scale, "quantised matrix .* whose weight_.* has shape"),
        (transpose_scale, "quantised matrix .* whose weight_.* has shape"),
        (drop_scale, "quantised matrix .* without its weight_"),
        (name_unknown, "unknown layout 'int3'"),
        (contradict, "damaged marks"),
        (drop_marks, "nothing says in which layout"),
    ],
)
@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_matrix_without_what_it_needs(files, kind, tmp_path, change, says):
    path = edited(files[kind], tmp_path, change)
    with pytest.raises(InputError, match=says):
        load_transformers(path)
    refused(path, tmp_path)


def test_sizes_that_contradict_the_tensors(files, tmp_path):
    content = files["bf16"].read_bytes()
    for old, new in ((b'layers\\": 2', b'layers\\": 1'), (b'layers\\": 2', b'layers\\": 0')):
        assert old in content
        path = damaged(files["bf16"], tmp_path, content.replace(old, new))
        with pytest.raises(InputError, match="damaged"):
            load_transformers(path)
        for file in tmp_path.glob("*"):
            file.unlink()


@pytest.mark.parametrize("kind", KINDS[:1])
def test_a_pickle_that_would_run_a_program(files, kind, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / files[kind].name
    torch.save({"module": published(SMALL) | {"trap": Trap()}}, path)
    refused(path, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_converted_files_of_two_models(files, tmp_path):
    """A companion must come from the same source file."""
    other = tmp_path / "mp_rank_00_model_states.pt"
    torch.save({"module": {n: v + 1 for n, v in published(SMALL).items()}}, other)
    made = run(other, tmp_path / "other")
    made[1].unlink()
    (made[1].parent / "hallo3_reference_bf16.safetensors").hardlink_to(
        files["bf16"].parent / "hallo3_reference_bf16.safetensors"
    )
    with pytest.raises(InputError, match="The reference network that was made with"):
        load_transformers(made[0])


def test_a_full_disk(files, tmp_path):
    """A real disk of 1 MB, if this machine allows us to mount it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        with pytest.raises(InputError, match="There is no room left for"):
            run(files["published"], disk)
        assert not [path for path in disk.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_metadata_says_where_a_file_came_from(files):
    found = metadata(files["fp8_e4m3fn"])
    assert found["hallo3_format"] == "1"
    assert found["source"] == "mp_rank_00_model_states.pt"
    assert len(found["source_sha256"]) == 64
    assert found["dtype"] == "fp8_e4m3fn"


def metadata(file: Path) -> dict:
    with file.open("rb") as opened:
        size = struct.unpack("<Q", opened.read(8))[0]
        return json.loads(opened.read(size))["__metadata__"]
