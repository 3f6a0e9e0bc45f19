"""A real ComfyUI in this process, without its server."""

import asyncio
import importlib
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pytest
import torch
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
BUILT_IN = "built-in tiny model"


class Host:
    """Runs graphs in API form, and keeps the values that reach the node `Keep`."""

    def __init__(self, comfyui: Path, base: Path, *, extra_nodes: bool = True, **flags):
        for folder in ("input", "output", "temp", "user", "models", "custom_nodes"):
            (base / folder).mkdir(parents=True)
        picture = np.random.default_rng(1).integers(0, 255, (60, 90, 3), np.uint8)
        Image.fromarray(picture).save(base / "input" / "portrait.png")
        sys.path.insert(0, str(comfyui))
        cli_args = importlib.import_module("comfy.cli_args")
        vars(cli_args.args).update({"cpu": True, "base_directory": str(base)} | flags)
        self.base = base
        self.nodes = importlib.import_module("nodes")
        self.execution = importlib.import_module("execution")
        asyncio.run(self.load(extra_nodes))
        self.events: list[tuple[str, dict]] = []
        self.kept: dict[str, object] = {}
        self.server = SimpleNamespace(client_id="test", last_node_id=None, send_sync=self.send)
        self.use_cache("RAM_PRESSURE")

    async def load(self, extra_nodes: bool) -> None:
        if extra_nodes:
            await self.nodes.init_builtin_extra_nodes()
        assert await self.nodes.load_custom_node(str(PACK))
        host = self

        class Keep:
            RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "keep", True, "test"

            @classmethod
            def INPUT_TYPES(cls):
                return {"required": {"value": ("*",)}, "hidden": {"own": "UNIQUE_ID"}}

            @classmethod
            def VALIDATE_INPUTS(cls, input_types):
                return True

            @classmethod
            def IS_CHANGED(cls, **inputs):
                return float("nan")

            def keep(self, value, own):
                host.kept[own] = value
                return ()

        class NoiseAudio:
            """Noise of a given length at 16 kHz. It is always the same."""

            RETURN_TYPES, FUNCTION, CATEGORY = ("AUDIO",), "make", "test"

            @classmethod
            def INPUT_TYPES(cls):
                return {"required": {"seconds": ("FLOAT", {"default": 1.0})}}

            def make(self, seconds):
                return (noise_audio(seconds),)

        self.nodes.NODE_CLASS_MAPPINGS |= {"Keep": Keep, "NoiseAudio": NoiseAudio}

    def use_cache(self, kind: str) -> None:
        """Start again with one of ComfyUI's caches: CLASSIC, LRU, NONE or RAM_PRESSURE.

        The last is the default and has the sizes that the server gives it (its main.py): what
        the running prompt has not used yet is dropped after every node.
        """
        total = importlib.import_module("comfy.model_management").total_ram / 1024
        ram, inactive = min(10.0, max(2.0, total * 0.10)), min(128.0, total)
        kept = {"lru": 100, "ram": ram, "ram_inactive": inactive}
        self.executor = self.execution.PromptExecutor(
            self.server, self.execution.CacheType[kind], kept
        )

    def send(self, event: str, data: dict, client_id=None) -> None:
        self.events.append((event, data))

    def run(self, graph: "Graph", fresh: bool = False) -> list:
        """The values that reached `Keep`, in the order of the graph.

        `fresh` forgets what earlier runs computed. Raises `HostError` with the message that the
        user sees if the graph is refused or a node fails.
        """
        if fresh:
            self.executor.reset()
        self.events.clear()
        self.kept.clear()
        prompt_id, prompt = str(uuid4()), deepcopy(graph.nodes)
        valid, error, outputs, node_errors = asyncio.run(
            self.execution.validate_prompt(prompt_id, prompt, None)
        )
        if not valid or node_errors:
            raise HostError(f"{error} {node_errors}")
        self.executor.execute(prompt, prompt_id, {"client_id": "test"}, outputs)
        for event, data in self.events:
            if event == "execution_error":
                raise HostError(data["exception_message"].strip())
            if event == "execution_interrupted":
                raise InterruptedError
        return [self.kept[name] for name in graph.nodes if name in self.kept]

    def executed(self, kind: str) -> list[str]:
        """Ids of the nodes of a kind that were really computed in the last run."""
        dynprompt = [data["node"] for event, data in self.events if event == "executing"]
        return [node for node in dynprompt if node and kind in node]


def switch_previews_on(monkeypatch):
    """ComfyUI makes live previews from now on. Returns its module of them."""
    latent_preview = importlib.import_module("latent_preview")
    method = importlib.import_module("comfy.cli_args").LatentPreviewMethod.Auto
    monkeypatch.setattr(latent_preview, "default_preview_method", method)
    monkeypatch.setattr(latent_preview.args, "preview_method", method)
    return latent_preview


def noise_audio(seconds: float) -> dict:
    generator = torch.Generator().manual_seed(3)
    waveform = torch.randn(1, 1, round(16_000 * seconds), generator=generator)
    return {"waveform": waveform * 0.1, "sample_rate": 16_000}


class HostError(Exception):
    """A graph was refused, or a node failed."""


def fails(host: Host, graph: "Graph", message: str) -> None:
    """The graph must fail with one sentence that matches `message`."""
    with pytest.raises(HostError, match=message) as error:
        host.run(graph)
    assert "\n" not in str(error.value)


class Graph:
    """A graph in API form, built by calling it: `graph("KSampler", model=..., ...)`."""

    def __init__(self):
        self.nodes: dict[str, dict] = {}

    def __call__(self, kind: str, **inputs) -> "Out":
        name = str(len(self.nodes) + 1)
        links = {
            key: value.link if isinstance(value, Out) else value for key, value in inputs.items()
        }
        self.nodes[name] = {"class_type": kind, "inputs": links}
        return Out(name)

    def keep(self, value: "Out") -> None:
        self("Keep", value=value)


class Given:
    """A node that gives out any value, in the place of a node of another pack."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("*",), "make", "test"
    value = None

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def make(self):
        return (self.value,)


def given(host: Host, graph: Graph, kind: str, value) -> "Out":
    """`value` on a socket of that kind."""
    name = f"Given{id(value)}"
    host.nodes.NODE_CLASS_MAPPINGS[name] = type(
        name, (Given,), {"value": value, "RETURN_TYPES": (kind,)}
    )
    return graph(name)


class Out:
    """An output of a node: the first one, unless it is indexed."""

    def __init__(self, node: str, index: int = 0):
        self.link = [node, index]

    def __getitem__(self, index: int) -> "Out":
        return Out(self.link[0], index)


class Parts(NamedTuple):
    """A graph with everything loaded and encoded."""

    graph: Graph
    model: Out
    vae: Out
    identity: Out
    speech: Out

    def segment(self, kind: str, index: int = 0, **inputs) -> Out:
        """A node that makes something of a segment."""
        made_of = {"model": self.model, "identity": self.identity, "speech": self.speech}
        return self.graph(kind, **made_of, segment_index=index, **inputs)

    def encode(self, image: Out, **inputs) -> Out:
        """Another identity."""
        networks = {"vae": self.vae, "reference_network": self.model[1]}
        settings = {"growth": 1.2, "seed": 0}
        return self.graph("Hallo3EncodeIdentity", image=image, **networks | settings | inputs)


def build(
    seconds: float, seed: int = 5, model_name: str = BUILT_IN, vae_name: str = BUILT_IN
) -> Parts:
    """A graph of a landscape portrait and `seconds` of noise, loaded and encoded."""
    graph = Graph()
    loaded = graph("Hallo3LoadDiT", model_name=model_name, weight_dtype="default")
    vae = graph("Hallo3LoadVAE", vae_name=vae_name)
    encoder = graph("Hallo3LoadSpeechEncoder", encoder_name=BUILT_IN)
    image = graph("LoadImage", image="portrait.png")
    identity = graph(
        "Hallo3EncodeIdentity",
        image=image,
        vae=vae,
        reference_network=loaded[1],
        growth=1.2,
        seed=seed,
    )
    audio = graph("NoiseAudio", seconds=seconds)
    speech = graph("Hallo3EncodeSpeech", audio=audio, speech_encoder=encoder)
    return Parts(graph, loaded, vae, identity, speech)
