"""onnxruntime, which is optional."""

import importlib
import importlib.util
import multiprocessing
import os
from collections.abc import Callable
from typing import Any


def installed() -> bool:
    """Whether onnxruntime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def providers() -> list[str]:
    """The execution providers, best first, without TensorRT.

    TensorRT takes minutes to prepare each network.
    """
    if multiprocessing.parent_process():  # a graphics card cannot be used after a fork
        return ["CPUExecutionProvider"]
    available = importlib.import_module("onnxruntime").get_available_providers()
    return [name for name in available if not name.startswith("Tensorrt")]


class PerProcess:
    """Calls `open_it` once per process and returns the result, such as a session.

    The threads of a session do not survive a fork, so each process opens its own.
    """

    def __init__(self, open_it: Callable[[], Any]):
        self.open = open_it
        self.opened: dict[int, Any] = {}
        self()

    def __call__(self) -> Any:
        process = os.getpid()
        if process not in self.opened:
            self.opened[process] = self.open()
        return self.opened[process]

    def __reduce__(self) -> tuple:
        return PerProcess, (self.open,)
