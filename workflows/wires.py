"""Is a wire behind a node? For the wires of a graph on the screen, and of a saved graph.

A wire is a row of cubic curves. The front end ends a curve at each reroute: a point through which
the wires of one output pass.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from operator import mul
from typing import NamedTuple

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""
Curve = tuple[Point, Point, Point, Point]
"""Its begin, two control points and its end."""

SAMPLES = 64
"""Points of a curve that are looked at."""
SOCKET = 24
"""How far a wire may be over the two nodes that it connects: its ends are inside them."""
ROW, WIDGET = 20, 24
"""Heights of a socket and of a widget in a node of the classic style, in pixels."""
REACH, FARTHEST = 0.25, 20
"""A control point is at this part of a curve's length, and at a reroute not farther than this."""


class Wire(NamedTuple):
    name: str
    ends: tuple[str, str]
    """The two nodes that it connects."""
    curves: list[Curve]


def points(curve: Curve) -> Iterator[Point]:
    """Points along a curve."""
    for step in range(SAMPLES + 1):
        t = step / SAMPLES
        weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
        x, y = (sum(map(mul, weights, along)) for along in zip(*curve, strict=True))
        yield x, y


def hidden(wires: list[Wire], boxes: dict[str, Box]) -> list[tuple[str, str]]:
    """The name of each wire that is behind a node, and the key of the node in `boxes`."""
    found = []
    for wire in wires:
        path = [point for curve in wire.curves for point in points(curve)]
        for key, (left, top, right, bottom) in boxes.items():
            edge = SOCKET if key in wire.ends else 0
            if any(left + edge < x < right - edge and top < y < bottom for x, y in path):
                found.append((wire.name, key))
    return found


def saved(graph: dict) -> list[Wire]:
    """The wires of a saved workflow, where the front end draws them in the classic style."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    reroutes = {reroute["id"]: reroute for reroute in graph["extra"].get("reroutes", [])}
    parents = {each["id"]: each["parentId"] for each in graph["extra"].get("linkExtensions", [])}
    ways = {}
    for id, source, output, target, input, _ in graph["links"]:
        ids = list(chain(parents.get(id), reroutes))[::-1]
        through = [tuple(reroutes[each]["pos"]) for each in ids]
        ways[id] = [socket(nodes[source], "outputs", output), *through]
        ways[id].append(socket(nodes[target], "inputs", input))
    wires = []
    for id, source, output, target, input, _ in graph["links"]:
        name = f"{source}.{output} > {target}.{input}"
        curves = list(bent(ways[id], list(ways.values())))
        wires.append(Wire(name, (str(source), str(target)), curves))
    return wires


def chain(id: int | None, reroutes: dict[int, dict]) -> Iterator[int]:
    """The reroutes of a link, from the last one to the first."""
    while id is not None:
        yield id
        id = reroutes[id].get("parentId")


def socket(node: dict, side: str, place: int) -> Point:
    """Where a wire ends at a node."""
    (x, y), (width, _) = node["pos"], node["size"]
    given = node[side][place]
    free = [each for each in node[side] if side == "outputs" or "widget" not in each]
    x += width + 1 - ROW / 2 if side == "outputs" else ROW / 2
    if given in free:
        return x, y + (free.index(given) + 0.7) * ROW
    widgets = [each["name"] for each in node["inputs"] if "widget" in each]
    rows = max(len(free), len(node["outputs"]))
    return x, y + rows * ROW + 4 + (widgets.index(given["name"]) + 0.5) * WIDGET


def bent(way: list[Point], ways: list[list[Point]]) -> Iterator[Curve]:
    """The curves of a wire through its reroutes. A reroute's slope is the mean of those beside it,
    over all wires that pass it."""
    slope = 0.0
    for place, (begin, end) in enumerate(pairwise(way)):
        length = math.dist(begin, end) * REACH
        first, last = place == 0, place == len(way) - 2
        out = polar(length if first else min(length, FARTHEST), slope)
        if not last:
            ahead = [other[place + 2] for other in ways if other[: place + 2] == way[: place + 2]]
            slope = (angle(begin, end) + sum(angle(end, to) for to in ahead) / len(ahead)) / 2
            length = min(length, FARTHEST)
        back = polar(length, 0 if last else slope)
        yield begin, add(begin, out), (end[0] - back[0], end[1] - back[1]), end


def angle(begin: Point, end: Point) -> float:
    return math.atan2(end[1] - begin[1], end[0] - begin[0])


def polar(length: float, angle: float) -> Point:
    return length * math.cos(angle), length * math.sin(angle)


def add(one: Point, other: Point) -> Point:
    return one[0] + other[0], one[1] + other[1]
