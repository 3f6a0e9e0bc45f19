"""Convert the published files to safetensors for ComfyUI's `models` folder.

The transformer file is split into three files, one for each network, because the networks are
needed at different times. Its tensors keep their published names. The autoencoder gets diffusers'
names, so that ComfyUI's own loader reads it. Files are memory-mapped and written in slices.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
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
from ..network.weight_formats import BY_NAME, WeightFormat
from ..quantization.layouts import Layout, is_quantized
from ..quantization.stored import MARK, as_bytes, header_of, mark_of
from ..speech.wav2vec2 import speech_encoder_layout, speech_file
from .finding import COMFYUI_DOWNLOADS, SPEECH_FOLDER, TRANSFORMER_FILE, VAE_FILE
from .layout import NETWORKS, PARTS, published_layout, vae_layout

FORMAT = "1"


@dataclass(frozen=True)
class Part:
    """A file to write, with numbers of `dtype`.

    `names` maps the tensor names in it to the names in the source. `layouts` has the layouts of the
    matrices that are quantised, by the names in the file.
    """

    file: Path
    names: dict[str, str]
    dtype: torch.dtype
    metadata: dict[str, str]
    layouts: dict[str, Layout] = field(default_factory=dict)

    def entries(self, weights: Mapping[str, Tensor]) -> Iterator[Entry]:
        """The tensors of the file, in order."""
        for name, theirs in self.names.items():
            shape = tuple(weights[theirs].shape)
            layout = self.layouts.get(name)
            if layout is None:
                yield Entry(name, self.dtype, shape)
                continue
            options = layout.choose(shape[1])
            for end, part in (layout.expected(shape, options) or {}).items():
                yield Entry(f"{name}{end}", part.dtype, tuple(part.shape))
            mark = as_bytes(mark_of(layout, options))
            yield Entry(f"{name.removesuffix('weight')}{MARK}", mark.dtype, tuple(mark.shape))

    def header(self, weights: Mapping[str, Tensor]) -> dict[str, str]:
        """The metadata of the file, with the marks of its quantised matrices."""
        marks = {
            name.removesuffix(".weight"): mark_of(
                layout, layout.choose(weights[self.names[name]].shape[1])
            )
            for name, layout in self.layouts.items()
        }
        return self.metadata | header_of(marks)


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
    if any(map(is_quantized, weights.values())):
        raise InputError(f"{source} is already quantised: give the published file.")
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
        formats = BY_NAME[dtype], BY_NAME[dtype].of_reference
        quantized = [
            _layouts(kind, names, weights) for kind, names in zip(formats, layouts[:2], strict=True)
        ]
        parts = [
            _part(PARTS[0], folder, f"dit_{dtype}", denoiser, dtype, sizes, quantized[0]),
            _part(PARTS[1], folder, f"reference_{dtype}", reference, dtype, sizes, quantized[1]),
            _part(PARTS[2], folder, f"audio_{wide}", audio, wide, sizes),
        ]
    used = {name for part in parts for name in part.names.values()}
    return Conversion(source, weights, parts, [name for name in weights if name not in used])


def _part(network, folder, name, names, dtype, sizes=MappingProxyType({}), layouts=None) -> Part:
    metadata = {"hallo3_format": FORMAT, "hallo3_network": network, "dtype": dtype, **sizes}
    file = Path(folder, f"hallo3_{name}.safetensors")
    return Part(file, names, BY_NAME[dtype].dtype, metadata, layouts or {})


def _layouts(
    kind: WeightFormat, names: Mapping[str, str], weights: Mapping[str, Tensor]
) -> dict[str, Layout]:
    """The layouts of a network's matrices, by their published names. `names` maps ours to them."""
    found = {
        theirs: kind.layout_of(ours, tuple(weights[theirs].shape)) for ours, theirs in names.items()
    }
    return {name: layout for name, layout in found.items() if layout}


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
    zeros, contents = examine(plan, progress)
    origin["source_sha256"] = contents
    kept = made_before(plan, folder, origin, overwrite)
    for part in plan.parts:
        if part in kept:
            progress(sum(plan.weights[name].nbytes for name in part.names.values()))
            continue
        layouts = {name: part.layouts[name] for name in part.layouts.keys() - zeros}
        _write(replace(part, layouts=layouts), plan.weights, folder, origin, overwrite, progress)
    return [folder / part.file for part in plan.parts]


def _write(
    part: Part,
    weights: Mapping[str, Tensor],
    folder: Path,
    origin: dict[str, str],
    overwrite: bool,
    progress: Callable[[int], None],
) -> None:
    """Write a file of a plan, one matrix or one slice after the other."""
    metadata = part.header(weights) | origin
    with weights_file(folder / part.file, part.entries(weights), metadata, overwrite) as write:
        for name, theirs in part.names.items():
            tensor = weights[theirs]
            layout = part.layouts.get(name)
            if layout is None:
                for piece in slices(tensor):
                    write(piece.to(part.dtype))
                    progress(piece.nbytes)
                continue
            options = layout.choose(tensor.shape[1])
            for quantized in layout.parts(layout.quantize(tensor.float(), options)).values():
                write(quantized)
            write(as_bytes(mark_of(layout, options)))
            progress(tensor.nbytes)


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


def examine(plan: Conversion, progress: Callable[[int], None]) -> tuple[set[str], str]:
    """The names of tensors that have only zeros, and a SHA-256 hash of all tensors.

    A matrix of zeros has no scale, so it cannot be quantised. `progress` receives the bytes of each
    piece. Raises `InputError` for numbers that are NaN, infinite or too large for fp16.
    """
    zeros, contents = set(), hashlib.sha256()
    for part in plan.parts:
        limit = torch.finfo(part.dtype).max
        for name, theirs in part.names.items():
            contents.update(theirs.encode())
            largest = torch.zeros(())
            for piece in slices(plan.weights[theirs]):
                contents.update(piece.view(torch.uint8).numpy().data)
                largest = torch.maximum(largest, piece.float().abs().max())
                progress(piece.nbytes)
            if not largest <= limit:
                finite = largest.isfinite()
                kind = "numbers too large for fp16" if finite else "NaN or infinite numbers"
                raise InputError(
                    f"{plan.source} has {kind} in {theirs}: "
                    + ("choose bf16." if finite else "download it again.")
                )
            if largest == 0:
                zeros.add(name)
    return zeros, contents.hexdigest()
