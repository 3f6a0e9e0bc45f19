"""Leads the wires of a workflow around its nodes.

A wire to the next column goes through the gutter between the two. A longer one passes the columns
between in one of the bands of the layout, from a reroute where it comes in to one where it leaves.
All wires of one output share their reroutes.
"""

from collections.abc import Iterator
from itertools import combinations, groupby, product, zip_longest
from typing import NamedTuple

from layout import GUTTER, LANE, Grid, Places

EDGE = 30
"""How far a reroute is at least from the column that its wires pass."""
STEEP, WIDER = 700, 0.06
"""A wire that goes up or down more than STEEP pixels from a reroute needs more space beside it, by
this part of what is more: the front end bends it to the side."""
TOUCHING, CROSSING, REROUTE, PIXEL = 1000, 100, 60, 0.2
"""What is bad about a picture: a wire on another one, two wires that cross, a reroute, and each
pixel up and down."""


class Link(NamedTuple):
    id: int
    source: str
    output: int
    leaves: float
    """The height of the output below the top of its node."""
    target: str
    enters: float


class Reroute(NamedTuple):
    id: int
    parent: int | None
    x: float
    y: float
    links: list[int]


Place = tuple[int, int, int]
"""Left, top and width of a node."""


class Piece(NamedTuple):
    """A wire in a gutter: its output, and where it is on the left and on the right."""

    output: tuple[str, int]
    left: float
    right: float
    bare: bool
    """Does it have no reroute?"""


class Run(NamedTuple):
    """Neighbouring columns that the wires of an output pass in one band."""

    output: tuple[str, int]
    columns: set[int]


Cable = list[list[Run]]
"""Lanes side by side, and the runs in each."""


def columns_of(cable: Cable) -> set[int]:
    return {column for lane in cable for run in lane for column in run.columns}


class Router:
    """The ways of all wires, and how good the picture is with them."""

    def __init__(self, grid: Grid, links: list[Link]):
        self.grid = grid
        self.links: dict[tuple[str, int], list[Link]] = {}
        """The links of each output."""
        for link in sorted(links, key=lambda link: (link.source, link.output)):
            self.links.setdefault((link.source, link.output), []).append(link)
        for link in links:
            if self.column(link.source) >= self.column(link.target):
                raise SystemExit(f"{link.target} is not to the right of {link.source}")
        self.bands = {output: self.choices(output)[0] for output in self.links}
        """The band in which the wires of an output pass each column."""
        self.orders = [list(self.links) for _ in range(grid.rows + 1)]
        """In which order they pass in each band, from its top."""

    def column(self, key: str) -> int:
        return self.grid.cells[key][0]

    def passed(self, output: tuple[str, int]) -> range:
        """The columns that the wires of an output pass."""
        farthest = max(self.column(link.target) for link in self.links[output])
        return range(self.column(output[0]) + 1, farthest)

    def choices(self, output: tuple[str, int]) -> list[tuple[int, ...]]:
        """The bands in which they can pass them, with at most one change of the band."""
        free = [set(self.grid.free(column)) for column in self.passed(output)]
        bands = range(self.grid.rows + 1)
        found = {
            (first,) * change + (second,) * (len(free) - change)
            for first, second in product(bands, bands)
            for change in range(1, len(free) + 1)
        } or {()}
        return sorted(
            way for way in found if all(band in each for band, each in zip(way, free, strict=True))
        )

    def improve(self) -> None:
        """Change the bands and the order in them, one at a time, while the picture gets better."""
        best, before = self.badness(), None
        while best != before:
            before = best
            for output in self.links:
                best = self.best_bands(output, best)
            for order in self.orders:
                best = self.best_order(order, best)

    def best_bands(self, output: tuple[str, int], best: float) -> float:
        for choice in self.choices(output):
            kept, self.bands[output] = self.bands[output], choice
            if (badness := self.badness()) < best:
                best = badness
            else:
                self.bands[output] = kept
        return best

    def best_order(self, order: list, best: float) -> float:
        for i, j in combinations(range(len(order)), 2):
            for move in (swap, shift):
                kept = order[:]
                move(order, i, j)
                if (badness := self.badness()) < best:
                    best = badness
                else:
                    order[:] = kept
        return best

    def badness(self) -> float:
        places, heights = self.lanes()
        gutters = self.gutters(places, heights)
        crossings = sum(
            a.output != b.output and (a.left - b.left) * (a.right - b.right) < 0
            for gutter in gutters
            for a, b in combinations(gutter, 2)
        )
        touching = sum(
            one[1] == other[1] and abs(heights[one] - heights[other]) < LANE
            for one, other in combinations(heights, 2)
        )
        travel = sum(abs(piece.left - piece.right) for gutter in gutters for piece in gutter)
        reroutes = sum(len(self.through(output, heights)) for output in self.links)
        return TOUCHING * touching + CROSSING * crossings + REROUTE * reroutes + PIXEL * travel

    def gutters(self, places: Places, heights: dict) -> list[list[Piece]]:
        """The wires in each gutter."""
        gutters: list[list[Piece]] = [[] for _ in range(self.grid.last)]
        for output in self.links:
            for gutter, piece in self.pieces(output, places, heights):
                gutters[gutter].append(piece)
        return gutters

    def lanes(self) -> tuple[Places, dict]:
        """Where the nodes are, and the height at which each output's wires pass each column."""
        bands = [self.cables(band) for band in range(len(self.orders))]
        places = self.grid.placed([max(map(len, cables), default=0) for cables in bands])
        return places, {
            (output, column): self.grid.first_lane(places, band, columns_of(cable), len(cable))
            + LANE * lane
            for band, cables in enumerate(bands)
            for cable in cables
            for lane, runs in enumerate(cable)
            for output, columns in runs
            for column in columns
        }

    def cables(self, band: int) -> list[Cable]:
        """The lanes of a band, apart where no wire goes from one column to the next."""
        cables: list[Cable] = []
        for run in self.runs(band):
            beside = [cable for cable in cables if run.columns & columns_of(cable)]
            cables = [cable for cable in cables if cable not in beside]
            joined = [
                [run for lane in lanes for run in lane]
                for lanes in zip_longest(*beside, fillvalue=[])
            ]
            taken = [place for place, lane in enumerate(joined) if run.columns & columns_of([lane])]
            lane = max(taken, default=-1) + 1
            joined += [[]] if lane == len(joined) else []
            joined[lane].append(run)
            cables.append(joined)
        return cables

    def runs(self, band: int) -> Iterator[Run]:
        """Where wires pass neighbouring columns in a band, by the order in it."""
        for output in self.orders[band]:
            steps = zip(self.passed(output), self.bands[output], strict=True)
            for each, same in groupby(steps, lambda step: step[1]):
                if each == band:
                    yield Run(output, {column for column, _ in same})

    def pieces(
        self, output: tuple[str, int], places: Places, heights: dict
    ) -> Iterator[tuple[int, Piece]]:
        links = self.links[output]
        at, first = places.tops[output[0]] + links[0].leaves, self.column(output[0])
        for gutter in range(first, self.passed(output).stop):
            for link in links:
                if self.column(link.target) == gutter + 1:
                    yield (
                        gutter,
                        Piece(output, at, places.tops[link.target] + link.enters, gutter == first),
                    )
            if (output, gutter + 1) in heights:
                yield gutter, Piece(output, at, at := heights[output, gutter + 1], False)

    def through(self, output: tuple[str, int], heights: dict) -> list[tuple[int, bool]]:
        """The columns at which its wires need a reroute: on the left (False) or on the right."""
        needed = []
        ends = {self.column(link.target) for link in self.links[output]}
        for column in self.passed(output):
            here = heights[output, column]
            if heights.get((output, column - 1)) != here:
                needed.append((column, False))
            if column + 1 in ends or heights.get((output, column + 1)) != here:
                needed.append((column, True))
        return needed

    def drawn(self) -> tuple[dict[str, Place], list[Reroute]]:
        places, heights = self.lanes()
        sides = [
            max((beside(piece) for piece in pieces), default=EDGE)
            for pieces in self.gutters(places, heights)
        ]
        """How far reroutes are from the columns beside each gutter."""
        lefts = [0]
        widths, at = self.grid.widths, self.column
        for width, side in zip(widths, sides, strict=False):
            lefts.append(lefts[-1] + width + GUTTER + 2 * (side - EDGE))
        nodes = {key: (lefts[at(key)], top, widths[at(key)]) for key, top in places.tops.items()}
        made: list[Reroute] = []
        for output, links in self.links.items():
            parent = None
            for column, right in self.through(output, heights):
                x = widths[column] + sides[column] if right else -sides[column - 1]
                beyond = [link.id for link in links if self.column(link.target) > column]
                y = heights[output, column]
                made.append(Reroute(len(made) + 1, parent, lefts[column] + x, y, beyond))
                parent = made[-1].id
        return nodes, made


def routed(grid: Grid, links: list[Link]) -> tuple[dict[str, Place], list[Reroute]]:
    """The places of the nodes, and the reroutes of the wires."""
    router = Router(grid, links)
    router.improve()
    return router.drawn()


def beside(piece: Piece) -> int:
    """The space that a wire needs between its reroute and the column beside it."""
    steep = 0 if piece.bare else max(0, abs(piece.left - piece.right) - STEEP)
    return EDGE + round(WIDER * steep)


def swap(order: list, i: int, j: int) -> None:
    order[i], order[j] = order[j], order[i]


def shift(order: list, i: int, j: int) -> None:
    order.insert(j, order.pop(i))
