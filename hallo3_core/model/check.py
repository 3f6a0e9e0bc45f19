"""Check weights files: what they are, and whether they can be loaded."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..checkpoints.filling import require_shapes
from ..checkpoints.reading import read_weights, shapes_of
from ..checkpoints.recognise import SPEECH_ENCODER, TEXT_ENCODER, VAE, describe, hallo3_parts
from ..checkpoints.weights_file import read_metadata, slices
from ..errors import InputError
from ..network.config import Hallo3Config
from ..quantization.layouts import is_quantized, restored
from ..quantization.stored import beside, joined, read_mark
from ..speech.wav2vec2 import speech_encoder_layout
from ..text import t5_layout
from .convert import find_sources
from .layout import (
    NETWORKS,
    PARTS,
    converted_config,
    converted_layout,
    published_layout,
    vae_layout,
)


@dataclass(frozen=True)
class CheckReport:
    """The result of `check`.

    `parameters` is the number of elements of all tensors that are used, `dtypes` the number of
    these tensors of each dtype, and `extra` the names of tensors that are not used.
    """

    kind: str
    sizes: str
    parameters: int
    dtypes: Mapping[str, int]
    extra: list[str]

    def lines(self) -> Iterator[str]:
        kinds = ", ".join(f"{count:,} tensors {name}" for name, count in self.dtypes.items())
        yield f"{self.kind}{self.sizes}: {self.parameters:,} parameters; {kinds}"
        if self.extra:
            yield f"{len(self.extra)} tensors that are not used, such as {self.extra[0]}"
        yield "complete, all numbers are finite; it can be loaded"


def installed_files(folder: Path) -> list[Path]:
    """Hallo3's files in ComfyUI's `models` folder: the converted ones, or else the published ones.

    Raises `InputError` if there are none.
    """
    return sorted(folder.glob("*/hallo3_*.safetensors")) or find_sources(folder)


def check(path: Path) -> CheckReport:
    """Read all tensors of a file.

    Raises `InputError` if the file cannot be loaded or has NaN or infinite numbers.
    """
    weights, metadata = read_weights(path), read_metadata(path)
    if hallo3_parts(weights):
        weights = joined(weights, metadata, path)
    kind, sizes, modules = _recognise(path, weights, metadata)
    used: set[str] = set()
    for module, names in modules:
        require_shapes(module, weights, names, path)
        used.update(names.values())
    for name in used:
        if not all(
            bool(piece.float().isfinite().all()) for piece in slices(restored(weights[name]))
        ):
            raise InputError(f"{path} has NaN or infinite numbers in {name}: download it again.")
    known = used.union(*map(beside, used))
    extra = [name for name in weights if name not in known]
    dtypes = Counter(_dtype(weights, name) for name in used)
    count = sum(weights[name].numel() for name in used)
    return CheckReport(kind, sizes, count, dtypes, extra)


def _dtype(weights: Mapping[str, Tensor], name: str) -> str:
    """The dtype of a tensor, or the layout of a quantised matrix."""
    if is_quantized(weights[name]):
        return read_mark(weights, name)[0].name
    return str(weights[name].dtype).removeprefix("torch.")


def _recognise(
    path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[str, str, list[tuple[nn.Module, dict[str, str]]]]:
    """What a file is, its sizes, and its networks.

    Each network comes with a map from the names of its tensors to the names in the file.
    """
    kind = describe(weights)
    if kind == VAE:
        return "CogVideoX VAE", "", [vae_layout(weights, path)]
    if kind == SPEECH_ENCODER:
        return "wav2vec2-base", "", [speech_encoder_layout(weights, path)]
    if kind == TEXT_ENCODER:
        return "T5 v1.1 encoder", "", [t5_layout(weights, path)]
    if metadata.get("hallo3_network") in PARTS:
        config = converted_config(metadata, path)
        part = metadata["hallo3_network"]
        layout = converted_layout(config, part, weights, path)
        network, *_ = NETWORKS[PARTS.index(part)]
        module = network(config, device="meta")
        return f"Hallo3 {part}, converted", _sizes(config), [(module, layout)]
    if not hallo3_parts(weights):
        raise InputError(
            f"{path} is {kind}, which is not part of Hallo3: choose a published or converted file "
            "of Hallo3."
        )
    config, layouts = published_layout(shapes_of(weights), path)
    modules = [
        (network(config, device="meta"), layout)
        for (network, *_), layout in zip(NETWORKS, layouts, strict=True)
    ]
    return "Hallo3 transformers, as published", _sizes(config), modules


def _sizes(config: Hallo3Config) -> str:
    height, width = config.canvas
    return f", {config.layers} layers of width {config.width}, canvas {width} x {height}"
