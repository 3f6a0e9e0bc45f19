"""Training a model further on a folder of clips: all weights of a stage, or a LoRA."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from peft import LoraConfig, inject_adapter_in_model

from hallo3_core import builtin
from hallo3_core.faces import open_finder
from hallo3_core.inputs import face_folders
from hallo3_core.model import Hallo3
from hallo3_core.transformer import Denoiser

from .curves import plot
from .denoiser import IDENTITY, PUBLISHED, SPEECH, is_audio, train
from .examples import Examples, prepare
from .export import save_lora, save_networks
from .folder import FolderShots
from .loop import COMPUTE, Settings
from .networks import Networks

ADAPTED = {
    "identity": r"layers\.\d+\.(query_key_value|attention_out|face_attention\.\w+)",
    "speech": r"layers\.\d+\.audio_attention\.\w+",
}
"""The matrices of the denoiser that a LoRA adds to, by stage."""


def is_attention(name: str) -> bool:
    """What the published first stage trains: the attention of both networks, and the face's."""
    parts = ("query_key_value", "attention_out", "query_norm", "key_norm", "face_")
    return not is_audio(name) and any(part in name for part in parts)


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


def finetune(options: Namespace) -> list[Path]:
    model = Hallo3.from_folder(options.model) if options.model else builtin.load()
    finder = open_finder(face_folders(options))
    vae = model.vae.to(COMPUTE)

    def encoded(clips: Path, folder: str) -> Examples:
        shots = FolderShots(clips, model.config, finder, model.text_encoder)
        return prepare(options.run / folder, shots, vae, model.speech_encoder)

    examples = encoded(options.clips, "examples")
    unseen = encoded(options.unseen, "unseen") if options.unseen else None
    networks = Networks(model.denoiser, model.reference_network, model.audio_projector)
    settings = Settings(options.steps, options.rate, betas=(0.9, 0.95), weight_decay=1e-4, clip=0.1)
    stage = replace(STAGES[options.stage], settings=settings, batch=options.batch)
    if options.lora:
        add_lora(networks.denoiser, stage.name, options.lora)
        stage = replace(stage, trains=lambda name: "lora_" in name)
    networks = train(networks, examples, stage, options.run, unseen)
    plot(options.run / stage.name)
    if options.lora:
        file = options.run / f"hallo3_{stage.name}_lora.safetensors"
        save_lora(networks.denoiser, file)
        return [file]
    return save_networks(networks, options.run, options.run / "models")
