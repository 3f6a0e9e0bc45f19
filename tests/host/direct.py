"""ComfyUI's nodes and its guider on the built-in model, called without a graph.

It is the model before distillation, because that one needs guidance.
"""

import importlib
import sys
from types import ModuleType

import torch
from comfyui import Host, build
from safetensors.torch import save_file
from torch import Tensor

from hallo3_core import builtin

SEED = 3
UNDISTILLED = "built-in tiny model, 50 steps"
UNDISTILLED_FILE = builtin.WEIGHTS / builtin.TRANSFORMER_FILE


class Direct:
    """A MODEL and the conditioning of its first segment, with functions to patch and to sample."""

    def __init__(self, host: Host):
        self.nodes = host.nodes.NODE_CLASS_MAPPINGS
        parts = build(seconds=1, model_name=UNDISTILLED)
        graph, segment = parts.graph, parts.segment("Hallo3SegmentConditioning")
        for kept in (parts.model, parts.vae, parts.identity, parts.speech):
            graph.keep(kept)
        for index in range(3):
            graph.keep(segment[index])
        loaded = host.run(graph)
        self.model, self.vae, self.identity, self.speech = loaded[:4]
        self.positive, self.negative, self.latent = loaded[4:]

    @torch.inference_mode()
    def node(self, name: str, **inputs):
        """The first result of a node, run as the server runs it."""
        kind = self.nodes[name]
        function = kind.execute if hasattr(kind, "execute") else getattr(kind(), kind.FUNCTION)
        result = function(**self.widgets(kind) | inputs)
        return result[0] if isinstance(result, tuple) else result.args[0]

    def widgets(self, kind) -> dict:
        """The default values of a node's widgets."""
        types = kind.INPUT_TYPES()
        return {
            key: value
            for key, (type_, *options) in (types["required"] | types.get("optional", {})).items()
            if (value := widget(type_, *options)) is not None
        }

    def patched(self, name: str, **inputs):
        """The MODEL after a node has patched it."""
        return self.node(name, model=self.model, **inputs)

    def sigmas(self, steps: int) -> Tensor:
        return self.patched("Hallo3Scheduler", steps=steps)

    @torch.inference_mode()
    def sample(
        self,
        model=None,
        positive: list | None = None,
        negative: list | None = None,
        latent: Tensor | None = None,
        mask: Tensor | None = None,
        steps: int = 2,
        sigmas: Tensor | None = None,
        noise: Tensor | None = None,
        sampler: object | None = None,
        guidance: float = 3.5,
    ) -> Tensor:
        """Latents, as SamplerCustomAdvanced gives them."""
        samplers = importlib.import_module("comfy.samplers")
        guider = samplers.CFGGuider(model or self.model)
        guider.set_conds(positive or self.positive, negative or self.negative)
        guider.set_cfg(guidance)
        latent = self.latent["samples"] if latent is None else latent
        generator = torch.Generator().manual_seed(SEED)
        return guider.sample(
            torch.randn(latent.shape, generator=generator) if noise is None else noise,
            latent,
            sampler or self.node("Hallo3Sampler", sampler="ddim"),
            self.sigmas(steps) if sigmas is None else sigmas,
            mask,
            disable_pbar=True,
            seed=SEED,
        )


def widget(kind, options: dict | None = None):
    """The default value of a widget, or None if the input is a socket."""
    options = options or {}
    if isinstance(kind, list | tuple):
        return options.get("default", kind[0] if kind else "")
    if kind == "COMBO":
        return options.get("default", options["options"][0] if options.get("options") else "")
    zeros = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
    return options.get("default", zeros.get(kind))


def change(found: Tensor, expected: Tensor) -> float:
    """The relative error of latents."""
    return ((found - expected).norm() / expected.norm()).item()


def strong_lora(host: Host) -> str:
    """The file of a LoRA on the keys and values of reference, face and speech in every layer."""
    folder = host.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    names = {"query_key_value": (384, 128)}
    names |= {f"{kind}_attention.key_value": (256, 32) for kind in ("face", "audio")}
    for layer in range(4):
        for name, (outputs, inputs) in names.items():
            key = f"diffusion_model.layers.{layer}.{name}"
            weights[f"{key}.lora_up.weight"] = torch.full((outputs, 1), 0.3)
            weights[f"{key}.lora_down.weight"] = torch.full((1, inputs), 0.3)
    save_file(weights, folder / "strong.safetensors")
    return "strong.safetensors"


def hooked(direct: Direct, conditioning: list, lora: str, *strengths: tuple[float, float]) -> list:
    """Conditioning with a LoRA whose strength changes while sampling."""
    hooks = direct.node("CreateHookLoraModelOnly", lora_name=lora, strength_model=1.0)
    frames = None
    for start, strength in strengths:
        frames = direct.node(
            "CreateHookKeyframe", start_percent=start, strength_mult=strength, prev_hook_kf=frames
        )
    hooks = direct.node("SetHookKeyframes", hooks=hooks, hook_kf=frames)
    return direct.node(
        "ConditioningSetProperties",
        cond_NEW=conditioning,
        hooks=hooks,
        strength=1.0,
        set_cond_area="default",
    )


def loading(host: Host) -> ModuleType:
    """The module of the pack that makes patchers."""
    node = host.nodes.NODE_CLASS_MAPPINGS["Hallo3LoadDiT"]
    return sys.modules[sys.modules[node.__module__].load_dit.__module__]


def dynamic_model(host: Host, monkeypatch):
    """The MODEL in the patcher that ComfyUI uses on NVIDIA cards."""
    patchers = importlib.import_module("comfy.model_patcher")

    class Buffer:
        def __init__(self, *sizes):
            self.size = 0

    monkeypatch.setattr(patchers.comfy_aimdo.host_buffer, "HostBuffer", Buffer)
    monkeypatch.setattr(patchers, "CoreModelPatcher", patchers.ModelPatcherDynamic)
    patcher, _ = loading(host).load_dit(UNDISTILLED_FILE, torch.float32)
    assert type(patcher) is patchers.ModelPatcherDynamic
    return patcher
