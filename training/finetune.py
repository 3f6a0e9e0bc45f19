"""Training a model further on a folder of clips: all weights of a stage, or a LoRA."""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model

from hallo3_core import builtin
from hallo3_core.cli.animate import face_folders
from hallo3_core.errors import InputError
from hallo3_core.memory.plan import GB, free_memory
from hallo3_core.model.hallo3 import Hallo3
from hallo3_core.network.config import Hallo3Config
from hallo3_core.network.layers import ScaledLinear
from hallo3_core.network.transformer import Denoiser
from hallo3_core.portrait.faces import open_finder

from .curves import plot
from .denoiser import IDENTITY, PUBLISHED, SPEECH, Stage, freeze, is_audio, train
from .examples import Examples, prepare
from .export import save_lora, save_networks
from .folder import FolderShots
from .loop import COMPUTE, DEVICE, Settings
from .memory import keep_in_fp8, step_bytes
from .networks import Networks

ADAPTED = {
    "identity": r"layers\.\d+\.(query_key_value|attention_out|face_attention\.\w+)",
    "speech": r"layers\.\d+\.audio_attention\.\w+",
}
"""The matrices of the denoiser that a LoRA adds to, by stage."""
RANK = 16


def is_attention(name: str) -> bool:
    """What the published first stage trains: the attention of both networks, and the face's."""
    parts = ("query_key_value", "attention_out", "query_norm", "key_norm", "face_")
    return not is_audio(name) and any(part in name for part in parts)


def is_lora(name: str) -> bool:
    return "lora_" in name


STAGES = {
    stage.name: replace(stage, trains=trains, dropped=PUBLISHED, strangers=0, noise=1, windows=0)
    for stage, trains in ((IDENTITY, is_attention), (SPEECH, is_audio))
}
"""As published: the audio modules are trained alone, conditions are dropped at the published rates,
and all timesteps are as likely."""


def add_lora(denoiser: Denoiser, stage: str, rank: int) -> None:
    """Low-rank additions at full strength, which is how files without a scale are read."""
    places = LoraConfig(r=rank, lora_alpha=rank, target_modules=ADAPTED[stage])
    inject_adapter_in_model(places, denoiser)


def make_ready(networks: Networks, stage: Stage, rank: int | None) -> Stage:
    """The stage as these networks, which are changed for that, are trained in it: all weights that
    it names, or a LoRA of some rank, which has a folder of its own."""
    if rank:
        add_lora(networks.denoiser, stage.name, rank)
        stage = replace(stage, name=f"{stage.name}_lora_{rank}", trains=is_lora)
    freeze(networks, stage)
    networks.save_memory()
    return stage


def is_scaled(networks: Networks) -> bool:
    """Whether matrices are kept in fp8."""
    return any(isinstance(module, ScaledLinear) for module in networks.modules())


def bytes_needed(config: Hallo3Config, stage: Stage, rank: int | None, scaled: bool) -> float:
    """Of a card, to train networks of these sizes whose matrices are in bf16, or (`scaled`) fp8."""
    with torch.device("meta"):
        networks = Networks.empty(config, torch.bfloat16)
        if scaled:
            keep_in_fp8(networks)
        stage = make_ready(networks, stage, rank)
    return step_bytes(networks, stage.batch)


def memory_table(rank: int, batch: int) -> Iterator[str]:
    """What fine-tuning the released model takes, a row for each stage and kind of weights."""
    yield "| stage | trained | the rest | takes |"
    yield "|---|---|---|---|"
    for stage in STAGES.values():
        for lora, scaled in ((rank, True), (rank, False), (None, False)):
            trained = f"LoRA of rank {lora}" if lora else "all weights of the stage"
            stage = replace(stage, batch=batch)
            needed = bytes_needed(Hallo3Config(), stage, lora, scaled)
            kept = "fp8" if scaled else "bf16"
            yield f"| {stage.name} | {trained} | {kept} | {needed / GB:.1f} GB |"


def require_room(needed: float, free: float, rank: int | None) -> None:
    """Raise `InputError` if fine-tuning needs more than the bytes that are free."""
    if needed > free:
        less = "give a converted fp8 model" if rank else f"give --lora {RANK}"
        raise InputError(
            f"Fine-tuning takes {needed / GB:.1f} GB of the card and {free / GB:.1f} GB are free: "
            f"close other programs, {less}, or use a larger card."
        )


def finetune(options: Namespace) -> list[Path]:
    if options.model:
        model = Hallo3.from_folder(options.model, COMPUTE)
    else:
        model = builtin.load().to(COMPUTE)
    networks = Networks(model.denoiser, model.reference_network, model.audio_projector)
    if is_scaled(networks) and not options.lora:
        raise InputError(
            f"The matrices of {options.model} are in fp8 and cannot be trained: give the model in "
            f"bf16, or --lora {RANK}."
        )
    settings = Settings(options.steps, options.rate, betas=(0.9, 0.95), weight_decay=1e-4, clip=0.1)
    stage = replace(STAGES[options.stage], settings=settings, batch=options.batch)
    if DEVICE.type != "cpu":
        needed = bytes_needed(model.config, stage, options.lora, is_scaled(networks))
        require_room(needed, free_memory(DEVICE), options.lora)

    def encoded(clips: Path, folder: str) -> Examples:
        finder = partial(open_finder, face_folders(options))
        shots = FolderShots(clips, model.config, finder, model.text_encoder)
        return prepare(options.run / folder, shots, model.vae, model.speech_encoder)

    examples = encoded(options.clips, "examples")
    unseen = encoded(options.unseen, "unseen") if options.unseen else None
    torch.manual_seed(0)
    stage = make_ready(networks, stage, options.lora)
    networks = train(networks, examples, stage, options.run, unseen)
    plot(options.run / stage.name)
    if options.lora:
        file = options.run / f"hallo3_{stage.name}.safetensors"
        save_lora(networks.denoiser, file)
        return [file]
    return save_networks(networks, options.run, options.run / "models")
