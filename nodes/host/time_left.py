"""The time left of a clip, on the node that the user sees and in the log."""

import logging

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...hallo3_core.progress import TimeLeft, in_words

logger = logging.getLogger(__name__)

_clips: dict[str, "ClipTime"] = {}
"""Of nodes that have laid out a clip, by their ids."""


class ClipTime(TimeLeft):
    """Shows on a node what is left of a clip, after every step from the second on."""

    def __init__(self, node: str, segments: int, steps: int, decoding: float):
        super().__init__(segments, steps, decoding)
        self.node = node

    def step(self) -> None:
        super().step()
        if self.step_times[1:]:
            self.show()

    def show(self) -> None:
        done, step = divmod(self.steps_done - 1, self.steps)
        text = f"segment {done + 1} of {self.segments}, {in_words(self.seconds)} left"
        if step == 1:
            logger.info("Hallo3: %s", text)
        if server := getattr(PromptServer, "instance", None):
            server.send_progress_text(text, self.node)


def begin(segments: int, steps: int, decoding: float) -> None:
    """The node that runs lays out a clip, whose segments take `decoding` s to be decoded each."""
    node = _shown_node()
    _clips[node] = ClipTime(node, segments, steps, decoding)


def running_clip(segment: int, steps: int = 1) -> ClipTime:
    """The clip that the node that runs belongs to; a node of its own has only that segment."""
    node = _shown_node()
    return _clips.get(node) or ClipTime(node, segment + 1, steps, decoding=0)


def _shown_node() -> str:
    """The id of the node that runs, or of the one that has expanded to it."""
    context = get_executing_context()
    return get_progress_state().dynprompt.get_display_node_id(context.node_id) if context else ""
