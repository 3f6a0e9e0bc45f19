"""Errors that the user can correct."""

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit statuses of the command line."""


class InputError(ValueError):
    """Bad input. The message is one sentence: what is wrong, what was found, what to do."""

    __module__ = "hallo3_core.errors"
    """ComfyUI shows this name. Without this line, it would begin with the path of the node pack."""

    def __init_subclass__(cls) -> None:
        cls.__module__ = "hallo3_core." + cls.__module__.split("hallo3_core.")[-1]


class NotEnoughMemory(InputError):
    """The device does not have enough memory for a part of the work."""


class CardLost(InputError):
    """Another process that works on the same clip has ended."""


def some(items: list[str]) -> str:
    """The first three items as text, then "..." if there are more."""
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
