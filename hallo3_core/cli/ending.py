"""How a command ends: an error of the user, or Ctrl-C, is one sentence and an exit status."""

import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper

from ..errors import BAD_INPUT, INTERRUPTED, InputError


def ended(command: Callable[[], int]) -> int:
    """Run a command. Returns its exit status. SIGTERM stops it like Ctrl-C.

    A stopped command prints what its `KeyboardInterrupt` says.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, TextIOWrapper):  # it may not have all characters of a file name
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return command()
    except InputError as error:
        return complain(f"{error}")
    except OSError as error:
        if error.filename is None:
            raise
        return complain(
            f"{error.filename} cannot be used ({error.strerror}): check its name, and whether you "
            "may read and write there."
        )
    except KeyboardInterrupt as stop:
        print(f"{stop}" or "Stopped.")
        return INTERRUPTED


def complain(sentence: str) -> int:
    """Print an error. Returns the exit status."""
    print(f"error: {sentence}", file=sys.stderr)
    return BAD_INPUT
