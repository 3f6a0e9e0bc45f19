"""The one kind of error that is the user's to mend."""

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit statuses of the command line."""


class InputError(ValueError):
    """Bad input. The message is one sentence: what is wrong, what was found, what to do."""

    __module__ = "hallo3_core.errors"
    """ComfyUI shows it, and by itself begins the name of a pack's module with the pack's path."""

    def __init_subclass__(cls) -> None:
        cls.__module__ = "hallo3_core." + cls.__module__.split("hallo3_core.")[-1]


class NotEnoughMemory(InputError):
    """The device has not the memory that a part of the work takes."""


def some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
