"""Shows lines of text under the node that is running."""

import logging

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

PACK = __package__.rsplit(".", 2)[0]
"""The parent of the loggers of the core and of the nodes."""

logger = logging.getLogger(__name__)

_warnings: dict[tuple[str, str], list[str]] = {}
"""The warnings of the running prompt, by the prompt and the node."""


def shown_node() -> tuple[str, str] | None:
    """The running prompt, and the node that the user sees for the running node.

    They differ if a node expands to others. None if no node is running.
    """
    context = get_executing_context()
    if context is None:
        return None
    node = get_progress_state().dynprompt.get_display_node_id(context.node_id)
    return context.prompt_id, node


def show(*lines: str) -> None:
    """Show lines under the running node, below its warnings. They replace earlier lines."""
    shown, server = shown_node(), getattr(PromptServer, "instance", None)
    if shown and server:
        server.send_progress_text("\n".join((*_warnings.get(shown, ()), *lines)), shown[1])


def say(*lines: str) -> None:
    """Show lines under the running node, and log them."""
    logger.info("Hallo3: %s", "; ".join(lines))
    show(*lines)


class ShownWarnings(logging.Handler):
    """Shows each warning of the core and of the nodes once, under the running node."""

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
