"""ComfyUI's nodes and its guider on the built-in model, called without a graph."""

import importlib

import torch
from comfyui import Host, build
from torch import Tensor

SEED = 3


class Direct:
    """A MODEL, what conditions its first segment, and ways to patch and to sample it."""

    def __init__(self, host: Host):
        self.nodes = host.nodes.NODE_CLASS_MAPPINGS
        parts = build(seconds=1)
        graph = parts.graph
        segment = graph(
            "Hallo3SegmentConditioning",
            model=parts.model,
            identity=parts.identity,
            speech=parts.speech,
            segment_index=0,
        )
        for kept in (parts.model, parts.vae, parts.identity, parts.speech):
            graph.keep(kept)
        for index in range(3):
            graph.keep(segment[index])
        loaded = host.run(graph)
        self.model, self.vae, self.identity, self.speech = loaded[:4]
        self.positive, self.negative, self.latent = loaded[4:]

    def node(self, name: str, **inputs):
        """The first result of a node."""
        kind = self.nodes[name]
        function = kind.execute if hasattr(kind, "execute") else getattr(kind(), kind.FUNCTION)
        result = function(**self.widgets(kind) | inputs)
        return result[0] if isinstance(result, tuple) else result.args[0]

    def widgets(self, kind) -> dict:
        """The widgets of a node as they are set at first."""
        types = kind.INPUT_TYPES()
        return {
            key: value
            for key, (type_, *options) in (types["required"] | types.get("optional", {})).items()
            if (value := widget(type_, *options)) is not None
        }

    def patched(self, name: str, **inputs):
        """What a node makes of the MODEL."""
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
    """What a widget shows at first; None if it is a socket."""
    options = options or {}
    if isinstance(kind, list | tuple):
        return options.get("default", kind[0] if kind else "")
    if kind == "COMBO":
        return options.get("default", options["options"][0] if options.get("options") else "")
    zeros = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
    return options.get("default", zeros.get(kind))


def change(found: Tensor, expected: Tensor) -> float:
    """How far latents are off, relative to what they should be."""
    return ((found - expected).norm() / expected.norm()).item()
