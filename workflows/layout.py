"""Places the nodes of a workflow in columns, with room for what they show when they run."""

from itertools import combinations

from parts import ROOM, Workflow

GAP = 50
"""The space between columns, and between the nodes of a column."""
FRAME = 50
"""The space of a group's frame above its first node, and below its last one."""


def columns(
    workflow: Workflow, sizes: dict[str, tuple[float, float]]
) -> dict[str, tuple[int, int, int]]:
    """Left, top and width of every node, by its key. `sizes` are widths, and heights with title."""
    first = {group.nodes[0] for group in workflow.groups}
    last = {group.nodes[-1] for group in workflow.groups}
    places, left = {}, 0
    for column in sorted({node[1] for node in workflow.nodes.values()}):
        keys = [key for key, node in workflow.nodes.items() if node[1] == column]
        width, top = max(round(sizes[key][0]) for key in keys), 0
        for key in keys:
            top += FRAME if key in first else 0
            places[key] = (left, top, width)
            room = ROOM.get(workflow.nodes[key][0], 0)
            top += round(sizes[key][1]) + room + GAP + (FRAME if key in last else 0)
        left += width + GAP
    return places


def overlaps(boxes: dict[str, tuple[float, ...]]) -> list[tuple[str, str]]:
    """Pairs of boxes (left, top, right, bottom) that overlap."""
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes.items(), 2)
        if max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])
    ]
