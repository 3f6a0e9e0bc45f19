"""Lines of text under the node that runs."""

import logging

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

PACK = __package__.rsplit(".", 2)[0]
"""Above the loggers of the core and of the nodes."""

logger = logging.getLogger(__name__)

_warnings: dict[tuple[str, str], list[str]] = {}
"""Of what the nodes of the running prompt have warned, by the prompt and the node."""


def shown_node() -> tuple[str, str] | None:
    """The running prompt and the node that the user sees: the one that runs, or has expanded to it.

    None if no node runs.
    """
    context = get_executing_context()
    if context is None:
        return None
    node = get_progress_state().dynprompt.get_display_node_id(context.node_id)
    return context.prompt_id, node


def show(*lines: str) -> None:
    """Shows lines under the node that runs, below its warnings, in place of what was there."""
    shown, server = shown_node(), getattr(PromptServer, "instance", None)
    if shown and server:
        server.send_progress_text("\n".join((*_warnings.get(shown, ()), *lines)), shown[1])


def say(*lines: str) -> None:
    """Shows lines under the node that runs, and logs them."""
    logger.info("Hallo3: %s", "; ".join(lines))
    show(*lines)


class ShownWarnings(logging.Handler):
    """Shows every warning of the core and of the nodes under the node that runs, each once."""

    def emit(self, record: logging.LogRecord) -> None:
        shown, text = shown_node(), record.getMessage()
        if shown is None:
            return
        for other in [key for key in _warnings if key[0] != shown[0]]:
            del _warnings[other]
        lines = _warnings.setdefault(shown, [])
        if text not in lines:
            lines.append(text)
        show()


logging.getLogger(PACK).addHandler(ShownWarnings(logging.WARNING))
