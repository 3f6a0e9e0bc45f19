"""Places the nodes of a workflow in columns, with room for what they show when they run.

A row begins at the same height in all columns that have one. So there are free bands above all
rows, between them and below them, in which wires pass the columns that lie between their nodes.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from parts import ROOM, Workflow

TITLE = 30
"""A node's position is below its title, which has this height."""
GAP = 50
"""The space between the nodes of a column."""
HEAD, FOOT, SIDE = 64, 24, 24
"""The space of a group's frame above its nodes, where its title is, below them, and beside them."""
GUTTER = 130
"""The least space between columns, where wires go up and down."""
MARGIN, LANE = 40, 20
"""The space between a node and the nearest wire of a band, and between two of its wires."""

Sizes = dict[str, tuple[float, float]]
"""Widths, and heights with title, of nodes by their keys."""


def cell(node: tuple) -> tuple[int, int]:
    """The column and the row of a node."""
    return node[1] if isinstance(node[1], tuple) else (node[1], 0)


class Places(NamedTuple):
    """Where the nodes are for some number of wires."""

    tops: dict[str, int]
    """Of the nodes, below their titles."""
    bands: list[int]
    """The top of each band, from the band above all rows to the one below them."""
    bottoms: list[int]
    """The lowest point of each column."""


class Grid:
    """The columns and rows of a workflow."""

    def __init__(self, workflow: Workflow, sizes: Sizes):
        self.workflow = workflow
        cells = {key: cell(node) for key, node in workflow.nodes.items()}
        columns = sorted({column for column, _ in cells.values()})
        self.cells = {key: (columns.index(column), row) for key, (column, row) in cells.items()}
        self.rows = 1 + max(row for _, row in self.cells.values())
        self.last = max(column for column, _ in self.cells.values())
        self.heights = {
            key: round(sizes[key][1]) + ROOM.get(node[0], 0) for key, node in workflow.nodes.items()
        }
        self.widths = [
            max(round(sizes[key][0]) for key, (at, _) in self.cells.items() if at == column)
            for column in range(self.last + 1)
        ]
        self.above: dict[str, int] = {}
        self.below: dict[str, int] = {}
        """The space that frames need at the first and at the last node of each column."""
        for group in workflow.groups:
            for key in group.nodes:
                column = [each for each in group.nodes if self.cells[each] == self.cells[key]]
                self.above[column[0]], self.below[column[-1]] = HEAD, FOOT
        self.frames = [list(self.framed(row)) for row in range(self.rows)]

    def framed(self, row: int) -> Iterator[range]:
        """The columns of each frame in a row that has nodes below it."""
        deeper = {column for column, below in self.cells.values() if below > row}
        for group in self.workflow.groups:
            inside = [column for column, at in map(self.cells.get, group.nodes) if at == row]
            columns = range(min(inside, default=0), max(inside, default=-1) + 1)
            if deeper & {*columns}:
                yield columns

    def placed(self, lanes: list[int]) -> Places:
        """The places for these numbers of lanes in the bands, from the top band to the bottom."""
        tops: dict[str, int] = {}
        bottoms = [0] * (self.last + 1)
        start, bands = TITLE, [0]
        for row in range(self.rows):
            for column in range(self.last + 1):
                self.stack(column, row, start, tops, bottoms)
            self.level(row, bottoms)
            deeper = {column for column, below in self.cells.values() if below > row}
            floor = max((bottoms[column] for column in deeper), default=0)
            count = lanes[row + 1]
            bands.append(floor)
            start = floor + TITLE + (2 * MARGIN + LANE * (count - 1) if count else GAP)
        return Places(tops, bands, bottoms)

    def stack(self, column: int, row: int, start: int, tops: dict, bottoms: list[int]) -> None:
        """Put the nodes of a cell one below the other."""
        for key in (key for key, at in self.cells.items() if at == (column, row)):
            start += self.above.get(key, 0)
            tops[key] = start
            bottoms[column] = start - TITLE + self.heights[key] + self.below.get(key, 0)
            start = bottoms[column] + GAP + TITLE

    def level(self, row: int, bottoms: list[int]) -> None:
        """End the columns of a group's frame at the same height, if nodes are below it."""
        for columns in self.frames[row]:
            lowest = max(bottoms[column] for column in columns)
            for column in columns:
                bottoms[column] = lowest

    def first_lane(self, places: Places, band: int, columns: set[int], lanes: int) -> int:
        """The height of the first of the lanes that wires take in some columns of a band."""
        if band == 0:
            return -MARGIN - LANE * (lanes - 1)
        if any(column in columns and row >= band for column, row in self.cells.values()):
            return places.bands[band] + MARGIN
        return max(places.bottoms[column] for column in columns) + MARGIN

    def free(self, column: int) -> list[int]:
        """The bands in which a wire can pass a column."""
        places = self.placed([0] * (self.rows + 1))
        deepest = max(row for at, row in self.cells.values() if at == column)
        below = [
            band
            for band in range(deepest + 1, self.rows)
            if places.bottoms[column] <= places.bands[band]
        ]
        return [*range(deepest + 1), *below, self.rows]


def overlaps(boxes: dict[str, tuple[float, ...]]) -> list[tuple[str, str]]:
    """Pairs of boxes (left, top, right, bottom) that overlap."""
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes.items(), 2)
        if max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])
    ]
