"""Fine-tuning a model on a folder of clips: all weights of a stage, or a LoRA."""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model

from hallo3_core import builtin
from hallo3_core.cli.animate.inputs import face_folders
from hallo3_core.errors import InputError
from hallo3_core.memory.plan import GB, free_memory
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.transformer import Denoiser
from hallo3_core.portrait.finders import open_finder
from hallo3_core.quantization.linear import QuantizedLinear

from .curves import plot
from .denoiser import DISTILLED, IDENTITY, PUBLISHED, SPEECH, Stage, freeze, is_audio, train
from .examples import Examples, prepare
from .export import save_lora, save_networks
from .folder import FolderShots
from .loop import COMPUTE, DEVICE, Settings
from .memory import quantize_matrices, step_bytes
from .networks import Networks

ADAPTED = {
    "identity": r"layers\.\d+\.(query_key_value|attention_out|face_attention\.\w+)",
    "speech": r"layers\.\d+\.audio_attention\.\w+",
    "distill": r"layers\.\d+\.(modulation|query_key_value|attention_out|mlp\.\w+"
    r"|face_attention\.\w+|audio_attention\.\w+)",
}
"""The matrices of the denoiser that a LoRA changes, for each stage."""
RANK = 16


def is_attention(name: str) -> bool:
    """The first published stage trains the attention of both networks and the face modules."""
    parts = ("query_key_value", "attention_out", "query_norm", "key_norm", "face_")
    return not is_audio(name) and any(part in name for part in parts)


def is_lora(name: str) -> bool:
    return "lora_" in name


STAGES = {
    stage.name: replace(stage, trains=trains, dropped=PUBLISHED, strangers=0, noise=1, windows=0)
    for stage, trains in ((IDENTITY, is_attention), (SPEECH, is_audio))
}
"""The published stages. The second one trains only the audio modules. Conditions are dropped at
the published rates, and all timesteps are equally likely."""


def add_lora(denoiser: Denoiser, stage: str, rank: int) -> None:
    """Add a LoRA of scale 1, because files without a scale are read so."""
    places = LoraConfig(r=rank, lora_alpha=rank, target_modules=ADAPTED[stage])
    inject_adapter_in_model(places, denoiser)


def make_ready(networks: Networks, stage: Stage, rank: int | None) -> Stage:
    """Prepare networks for a stage: all its weights are trained, or a LoRA if there is a `rank`.

    Changes the networks. Returns the stage with what is trained; a LoRA has its own folder.
    """
    if rank:
        add_lora(networks.denoiser, stage.name, rank)
        stage = replace(stage, name=f"{stage.name}_lora_{rank}", trains=is_lora)
    freeze(networks, stage)
    networks.save_memory()
    return stage


def is_scaled(networks: Networks) -> bool:
    """Whether the networks have quantised matrices."""
    return any(isinstance(module, QuantizedLinear) for module in networks.modules())


def bytes_needed(config: Hallo3Config, stage: Stage, rank: int | None, scaled: bool) -> float:
    """Bytes of a card that training takes. Matrices are in bf16, or in fp8 if `scaled`."""
    with torch.device("meta"):
        networks = Networks.empty(config, torch.bfloat16)
        if scaled:
            quantize_matrices(networks)
        stage = make_ready(networks, stage, rank)
    return step_bytes(networks, stage.batch)


def memory_table(rank: int, batch: int) -> Iterator[str]:
    """A table of the memory that fine-tuning the released model takes, in Markdown."""
    yield "| stage | trained | the rest | takes |"
    yield "|---|---|---|---|"
    for stage in (*STAGES.values(), DISTILLED):
        for lora, scaled in ((rank, True), (rank, False), (None, False)):
            trained = f"LoRA of rank {lora}" if lora else "all weights of the stage"
            stage = replace(stage, batch=batch)
            needed = bytes_needed(Hallo3Config(), stage, lora, scaled)
            kept = "fp8" if scaled else "bf16"
            yield f"| {stage.name} | {trained} | {kept} | {needed / GB:.1f} GB |"


def require_room(needed: float, free: float, rank: int | None) -> None:
    """Raise `InputError` if fine-tuning needs more bytes than are free."""
    if needed > free:
        less = "give a converted fp8 model" if rank else f"add --lora {RANK}"
        raise InputError(
            f"Fine-tuning takes {needed / GB:.1f} GB of the card and {free / GB:.1f} GB are free: "
            f"close other programs, {less}, or use a larger card."
        )


def open_networks(options: Namespace) -> tuple[Hallo3, Networks]:
    """The model that is trained further, and its networks that are trained.

    Raises `InputError` if all weights are asked for and the matrices are quantised.
    """
    if options.model:
        model = Hallo3.from_folder(options.model, COMPUTE)
    else:
        model = builtin.load(distilled=False).to(COMPUTE)
    networks = Networks(model.denoiser, model.reference_network, model.audio_projector)
    if is_scaled(networks) and not options.lora:
        raise InputError(
            f"The matrices of {options.model} are quantised and cannot be trained: give the model "
            f"in bf16, or add --lora {RANK}."
        )
    return model, networks


def require_card(stage: Stage, rank: int | None, networks: Networks) -> None:
    """Raise `InputError` if a graphics card has too little memory for a stage."""
    if DEVICE.type != "cpu":
        needed = bytes_needed(networks.config, stage, rank, is_scaled(networks))
        require_room(needed, free_memory(DEVICE), rank)


def encoded(options: Namespace, model: Hallo3, clips: Path, folder: str) -> Examples:
    """The clips as latents and speech features, kept in a folder of the run."""
    finder = partial(open_finder, face_folders(options))
    shots = FolderShots(clips, model.config, finder, model.text_encoder)
    return prepare(options.run / folder, shots, model.vae, model.speech_encoder)


def finetune(options: Namespace) -> list[Path]:
    """Fine-tune as the command line says. Returns the files that were written."""
    model, networks = open_networks(options)
    settings = Settings(options.steps, options.rate, betas=(0.9, 0.95), weight_decay=1e-4, clip=0.1)
    stage = replace(STAGES[options.stage], settings=settings, batch=options.batch)
    require_card(stage, options.lora, networks)
    examples = encoded(options, model, options.clips, "examples")
    unseen = encoded(options, model, options.unseen, "unseen") if options.unseen else None
    torch.manual_seed(0)
    stage = make_ready(networks, stage, options.lora)
    networks = train(networks, examples, stage, options.run, unseen)
    return save_trained(options, networks, stage)


def save_trained(
    options: Namespace, networks: Networks, stage: Stage, metadata: dict[str, str] | None = None
) -> list[Path]:
    """Plot the losses, and write the LoRA with its metadata, or all weights."""
    plot(options.run / stage.name)
    if options.lora:
        file = options.run / f"hallo3_{stage.name}.safetensors"
        save_lora(networks.denoiser, file, metadata)
        return [file]
    return save_networks(networks, options.run, options.run / "models")
