"""onnxruntime, which is there only if the user has installed it."""

import importlib
import importlib.util


def installed() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def providers() -> list[str]:
    """Where networks run, the best first: not in TensorRT, which takes minutes to prepare each."""
    available = importlib.import_module("onnxruntime").get_available_providers()
    return [name for name in available if not name.startswith("Tensorrt")]
