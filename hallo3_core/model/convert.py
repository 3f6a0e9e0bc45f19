"""Convert the published files to safetensors for ComfyUI's `models` folder.

The transformer file is split into three files, one for each network, because the networks are
needed at different times. Its tensors keep their published names. The autoencoder gets diffusers'
names, so that ComfyUI's own loader reads it. Files are memory-mapped and written in slices.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from ..checkpoints.filling import require_shapes
from ..checkpoints.reading import shapes_of
from ..checkpoints.recognise import SPEECH_ENCODER, VAE, describe, hallo3_parts
from ..checkpoints.weights_file import Entry, read_metadata, slices, weights_file
from ..errors import InputError
from ..media.outputs import check_name
from ..network.weight_formats import BY_NAME, WeightFormat, mark_name, scale_name
from ..speech.wav2vec2 import speech_encoder_layout, speech_file
from .finding import COMFYUI_DOWNLOADS, SPEECH_FOLDER, TRANSFORMER_FILE, VAE_FILE
from .layout import NETWORKS, PARTS, published_layout, vae_layout

FORMAT = "1"
LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max
SMALLEST_SCALE = 1e-12
FP8_MARK = json.dumps({"format": "float8_e4m3fn"}).encode().ljust(32)
"""The mark that ComfyUI needs beside a scaled weight, padded with spaces to 32 bytes."""


@dataclass(frozen=True)
class Part:
    """A file to write. `names` maps the tensor names in it to the names in the source."""

    file: Path
    names: dict[str, str]
    format: WeightFormat
    metadata: dict[str, str]

    def scales(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor is stored in fp8 with a scale. Only matrices of the layers are."""
        inside = re.search(r"\.(layers|adaLN_modulations)\.\d+\.", name)
        return self.format.scaled and tensor.ndim == 2 and bool(inside)

    def entries(self, weights: Mapping[str, Tensor]) -> Iterator[Entry]:
        """The tensors of the file, in order."""
        for name, theirs in self.names.items():
            tensor = weights[theirs]
            if not self.scales(name, tensor):
                yield Entry(name, self.format.others, tensor.shape)
                continue
            yield Entry(name, self.format.matrices, tensor.shape)
            yield Entry(scale_name(name), torch.float32, ())
            yield Entry(mark_name(name), torch.uint8, (len(FP8_MARK),))


@dataclass(frozen=True)
class Conversion:
    """Which file every tensor of a source goes to. No network uses those in `left_out`."""

    source: Path
    weights: Mapping[str, Tensor]
    parts: list[Part]
    left_out: list[str]

    def lines(self) -> Iterator[str]:
        """One line for each tensor of the source: its name, and the file that it goes to."""
        for part in self.parts:
            for name in part.names.values():
                yield f"{name} -> {part.file.as_posix()}"
        for name in self.left_out:
            yield f"{name} -> left out, not used"

    @property
    def bytes(self) -> int:
        """The size in bytes of all tensors of the source that are read."""
        names = (name for part in self.parts for name in part.names.values())
        return sum(self.weights[name].nbytes for name in names)


def find_sources(path: Path) -> list[Path]:
    """The published files at `path`, which is a file or a folder of the download.

    Raises `InputError` if there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(
            f"There is no {path}: give a published file, or the folder of these files."
        )
    if (path / "latest").is_file():
        version = (path / "latest").read_text(encoding="utf-8").strip()
        return [path / version / Path(TRANSFORMER_FILE).name]
    comfyui = ("diffusion_models/" + TRANSFORMER_FILE, *COMFYUI_DOWNLOADS)
    inside = [path / name for name in (TRANSFORMER_FILE, VAE_FILE, SPEECH_FOLDER, *comfyui)]
    found = [place for place in inside if place.exists()]
    found = [speech_file(place) if place.is_dir() else place for place in found]
    if not found and (path / "config.json").is_file():
        found = [speech_file(path)]
    if not found:
        raise InputError(
            f"There are no files of Hallo3 in {path}: give a folder with {TRANSFORMER_FILE}, "
            f"{VAE_FILE} or {SPEECH_FOLDER}."
        )
    return found


def plan(source: Path, weights: Mapping[str, Tensor], dtype: str) -> Conversion:
    """Plan which files the `weights` of `source` are converted to.

    `dtype` is one of `STORED`. Raises `InputError` if the weights are not Hallo3's, are
    incomplete or are converted already.
    """
    kind = describe(weights)
    part = read_metadata(source).get("hallo3_network")
    if part in PARTS:
        raise InputError(f"{source} is already converted (the {part}): give the published file.")
    ours = kind in (VAE, SPEECH_ENCODER) or hallo3_parts(weights)
    if not ours:
        raise InputError(
            f"{source} is {kind}, not a published file of Hallo3: give one that "
            "`python -m hallo3_core download` fetches."
        )
    wide = "fp16" if dtype == "fp16" else "bf16"
    if kind == VAE:
        module, names = vae_layout(weights, source)
        require_shapes(module, weights, names, source)
        parts = [_part("vae", "vae", f"vae_{wide}", names, wide)]
    elif kind == SPEECH_ENCODER:
        module, names = speech_encoder_layout(weights, source)
        require_shapes(module, weights, names, source)
        parts = [_part("speech encoder", "audio_encoders", "wav2vec2", names, "fp32")]
    else:
        config, layouts = published_layout(shapes_of(weights), source)
        for (network, *_), layout in zip(NETWORKS, layouts, strict=True):
            require_shapes(network(config, device="meta"), weights, layout, source)
        folder, sizes = "diffusion_models", {"config": json.dumps(asdict(config))}
        denoiser, reference, audio = (
            {name: name for name in layout.values()} for layout in layouts
        )
        parts = [
            _part(PARTS[0], folder, f"dit_{dtype}", denoiser, dtype, sizes),
            _part(PARTS[1], folder, f"reference_{dtype}", reference, dtype, sizes),
            _part(PARTS[2], folder, f"audio_{wide}", audio, wide, sizes),
        ]
    used = {name for part in parts for name in part.names.values()}
    return Conversion(source, weights, parts, [name for name in weights if name not in used])


def _part(network, folder, name, names, dtype, sizes: Mapping[str, str] = MappingProxyType({})):
    metadata = {"hallo3_format": FORMAT, "hallo3_network": network, "dtype": dtype, **sizes}
    return Part(Path(folder, f"hallo3_{name}.safetensors"), names, BY_NAME[dtype], metadata)


def convert(
    plan: Conversion, folder: Path, progress: Callable[[int], None], overwrite: bool = False
) -> list[Path]:
    """Write the files of a plan into `folder`, and return their paths.

    All tensors are read and checked before anything is written. `progress` receives the bytes of
    each piece, both times that it is read. A file that exists and comes from the same source is
    kept. Raises `InputError` if another file has the name of an output and `overwrite` is False, if
    an output has the path of the source, if numbers are NaN, infinite or too large for the dtype,
    or if there is no room.
    """
    origin = {"source": plan.source.name}
    made_before(plan, folder, origin, overwrite)
    largest, contents = examine(plan, progress)
    origin["source_sha256"] = contents
    kept = made_before(plan, folder, origin, overwrite)
    for part in plan.parts:
        if part in kept:
            progress(sum(plan.weights[name].nbytes for name in part.names.values()))
            continue
        path, entries = folder / part.file, part.entries(plan.weights)
        with weights_file(path, entries, part.metadata | origin, overwrite) as write:
            for name, theirs in part.names.items():
                tensor = plan.weights[theirs]
                if part.scales(name, tensor):
                    scale = (largest[theirs] / LARGEST_FP8).clamp(min=SMALLEST_SCALE)
                    for piece in slices(tensor):
                        scaled = (piece.float() / scale).clamp(-LARGEST_FP8, LARGEST_FP8)
                        write(scaled.to(part.format.matrices))
                        progress(piece.nbytes)
                    write(scale)
                    write(torch.tensor(list(FP8_MARK), dtype=torch.uint8))
                else:
                    for piece in slices(tensor):
                        write(piece.to(part.format.others))
                        progress(piece.nbytes)
    return [folder / part.file for part in plan.parts]


def made_before(
    plan: Conversion, folder: Path, origin: dict[str, str], overwrite: bool
) -> list[Part]:
    """The parts whose files exist in `folder`, with `origin` in their metadata.

    Raises `InputError` if another file has the name of a part and `overwrite` is False.
    """
    kept = []
    for part in plan.parts:
        path = folder / part.file
        if read_metadata(path).items() >= (part.metadata | origin).items():
            kept.append(part)
        else:
            check_name(path, [plan.source], overwrite)
    return kept


def examine(plan: Conversion, progress: Callable[[int], None]) -> tuple[dict[str, Tensor], str]:
    """The largest magnitude in each tensor that is read, and a SHA-256 hash of all of them.

    `progress` receives the bytes of each piece. Raises `InputError` for numbers that are NaN,
    infinite or too large for fp16.
    """
    largest, contents = {}, hashlib.sha256()
    for part in plan.parts:
        limit = torch.finfo(part.format.others).max
        for name in part.names.values():
            contents.update(name.encode())
            found = torch.zeros(())
            for piece in slices(plan.weights[name]):
                contents.update(piece.view(torch.uint8).numpy().data)
                found = torch.maximum(found, piece.float().abs().max())
                progress(piece.nbytes)
            if not found <= limit:
                kind = (
                    "numbers too large for fp16" if found.isfinite() else "NaN or infinite numbers"
                )
                raise InputError(
                    f"{plan.source} has {kind} in {name}: "
                    + ("choose bf16." if found.isfinite() else "download it again.")
                )
            largest[name] = found
    return largest, contents.hexdigest()
