"""onnxruntime, which is there only if the user has installed it."""

import importlib
import importlib.util
import multiprocessing
import os
from collections.abc import Callable
from typing import Any


def installed() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def providers() -> list[str]:
    """Where networks run, the best first: not in TensorRT, which takes minutes to prepare each."""
    if multiprocessing.parent_process():  # a card cannot be used after a fork
        return ["CPUExecutionProvider"]
    available = importlib.import_module("onnxruntime").get_available_providers()
    return [name for name in available if not name.startswith("Tensorrt")]


class PerProcess:
    """Opens something in each process that calls it: the threads of a session do not survive a
    fork."""

    def __init__(self, open_it: Callable[[], Any]):
        self.open, self.opened = open_it, {}
        self()

    def __call__(self) -> Any:
        process = os.getpid()
        if process not in self.opened:
            self.opened[process] = self.open()
        return self.opened[process]

    def __reduce__(self) -> tuple:
        return PerProcess, (self.open,)
