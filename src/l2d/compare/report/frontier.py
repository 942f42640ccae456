"""Quality against latency: one mark per contestant, the Pareto front drawn through those that nothing beats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from l2d.compare.report.figure import KINDS, Figure, kind_class, users_of
from l2d.compare.report.markup import Markup
from l2d.compare.report.reading import METRIC, Record, Row
from l2d.compare.report.scales import Linear, Log
from l2d.compare.report.svg import (
    GLYPH,
    WIDTH,
    Area,
    base_axis,
    clipped,
    group,
    legend,
    mark,
    picture,
    rule,
    trace,
    value_axis,
    words,
)
from l2d.compare.report.wording import NONE, amount, listed, rate, rate_ticks, ticked

HEIGHT = 420.0
TITLE = "Quality against latency"
P50 = ("latency_ms", "p50")

RINGS = (11.0, 22.0, 38.0, 56.0, 76.0)
"""Pixels from a mark at which its name may stand."""

NEAR = 8
"""Places in the first ring, where a name needs no line to its mark."""


@dataclass(frozen=True)
class Point:
    """A contestant on the plot: coordinates, and whether nothing is both faster and better."""

    row: Row
    x: float
    y: float
    front: bool


@dataclass(frozen=True)
class Box:
    """A rectangle that a mark or a name takes."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area in square pixels."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)

    def anchor(self, x: float) -> tuple[float, str]:
        """Where text begins that is to touch this box on the side of x, and how it is aligned there."""
        if self.left > x:
            return self.left, "start"
        return (self.right, "end") if self.right < x else ((self.left + self.right) / 2, "middle")


def frontier(record: Record) -> Figure:
    """The figure of the paper (arXiv 2509.11524): HR@10 over milliseconds on a log scale."""
    rows = [row for row in record.shared if row.number("metrics", METRIC) is not None and (row.number(*P50) or 0) > 0]
    header = ("row", "kind", "p50 ms", "HR@10", "users", "on the front")
    if not rows:
        return Figure("frontier", TITLE, None, "No row was timed, so that there is nothing to draw.", header, ())
    front = pareto([(row.number(*P50) or 0.0, row.number("metrics", METRIC) or 0.0) for row in rows])
    body = tuple(
        (row.name, row.kind, amount(row.number(*P50)), rate(row.number("metrics", METRIC)), users_of([row]), yes(on))
        for row, on in zip(rows, front, strict=True)
    )
    return Figure("frontier", TITLE, _draw(rows, front), _caption(rows, front, record), header, body)


def yes(answer: bool) -> str:
    """A cell of the table."""
    return "yes" if answer else NONE


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, worth) no other point beats: cheaper and at least as good, or as cheap and better."""

    def beaten(cost: float, worth: float) -> bool:
        return any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points)

    return [not beaten(*point) for point in points]


def _draw(rows: Sequence[Row], front: Sequence[bool]) -> Markup:
    keys, top = legend(_keys(rows))
    area = Area(44, top + 48, WIDTH - 12, HEIGHT - 46)
    spans = [row.interval() for row in rows]
    quality = [row.number("metrics", METRIC) or 0.0 for row in rows]
    times = [row.number(*P50) or 0.0 for row in rows]
    x = Log.fitting(times, area.left, area.right)
    y = Linear.fitting([*quality, *(bound for span in spans if span for bound in span)], area.bottom, area.top)
    points = [Point(*both) for both in zip(rows, map(x, times), map(y, quality), front, strict=True)]
    whiskers = [
        rule(point.x, y(span[0]), point.x, y(span[1]), f"whisker {kind_class(point.row.kind)}")
        for point, span in zip(points, spans, strict=True)
        if span
    ]
    return picture(
        "frontier",
        TITLE,
        _description(rows),
        HEIGHT,
        keys,
        value_axis(area, y, rate_ticks(y.ticks), "HR@10, higher is better"),
        base_axis(
            area, x, [ticked(tick) for tick in x.ticks], "ms for one request (median, log scale), left is faster"
        ),
        trace(_steps(points, area), "front"),
        group(*whiskers),
        _labels(points, area),
        group(*(_mark(point) for point in points)),
    )


def _keys(rows: Sequence[Row]) -> list[tuple[Markup, str]]:
    present = {row.kind for row in rows}
    keys = [(mark(shape, 0, 0, kind), kind) for kind, shape in KINDS.items() if kind in present]
    step = group(trace([(-7, 4), (0, 4), (0, -4), (7, -4)], "front"))
    return [*keys, (step, "Pareto front")]


def _mark(point: Point) -> Markup:
    row = point.row
    title = f"{row.name}: HR@10 {rate(row.number('metrics', METRIC))}, {amount(row.number(*P50))} ms"
    halo = mark("circle", point.x, point.y, "halo", size=9) if point.front else None
    return group(halo, mark(KINDS.get(row.kind, "cross"), point.x, point.y, kind_class(row.kind), title, 5))


def _steps(points: Sequence[Point], area: Area) -> list[tuple[float, float]]:
    """Corners of the front: what can be had within each budget of time."""
    corners: list[tuple[float, float]] = []
    for point in sorted((point for point in points if point.front), key=lambda point: point.x):
        corners += [(point.x, corners[-1][1] if corners else area.bottom), (point.x, point.y)]
    return [*corners, (area.right, corners[-1][1])]


def _labels(points: Sequence[Point], area: Area) -> Markup:
    """Names beside their marks, each where it covers least; one that had to move away gets a line to its mark."""
    taken = [
        Box(p.x - reach, p.y - reach, p.x + reach, p.y + reach) for p in points for reach in [10 if p.front else 6]
    ]
    taken += [
        Box(min(a, c), min(b, d) - 1, max(a, c), max(b, d) + 1) for (a, b), (c, d) in pairwise(_steps(points, area))
    ]
    parts = []
    for point in sorted(points, key=lambda point: point.x):
        box, led = _place(point, taken, area)
        taken.append(box)
        x, anchor = box.anchor(point.x)
        if led:
            y = min(max(point.y, box.top + 2), box.bottom - 2)
            parts.append(rule(point.x, point.y, x, y, "leader"))
        parts.append(words(x, box.bottom - 4, clipped(point.row.name), f"name {kind_class(point.row.kind)}", anchor))
    return group(*parts)


def _place(point: Point, taken: Sequence[Box], area: Area) -> tuple[Box, bool]:
    """The place for a name that covers least and is nearest, and whether it needs a line to the mark."""
    wide, high = len(clipped(point.row.name)) * GLYPH, 15.0
    inside = Box(area.left, area.top - 8, WIDTH - 2, area.bottom - 2)

    def cost(spot: tuple[int, Box]) -> float:
        rank, box = spot
        return 4 * sum(map(box.overlap, taken)) + 20 * (wide * high - box.overlap(inside)) + rank

    spots = list(enumerate(_around(point.x, point.y, wide, high)))
    rank, box = min(spots, key=cost)
    return box, rank >= NEAR


def _around(x: float, y: float, wide: float, high: float) -> Iterator[Box]:
    """Boxes around a point, the most natural first: rings of eight that grow."""
    for away in RINGS:
        side, slant = away + wide / 2, 0.7 * away + wide / 2
        spots = [(side, 0.0), (-side, 0.0), (0.0, -away - 6), (0.0, away + 6)]
        spots += [(slant, -away), (-slant, -away), (slant, away), (-slant, away)]
        for dx, dy in spots:
            yield Box(x + dx - wide / 2, y + dy - high / 2, x + dx + wide / 2, y + dy + high / 2)


def _description(rows: Sequence[Row]) -> str:
    facts = (f"{r.name} {rate(r.number('metrics', METRIC))} at {amount(r.number(*P50))} ms" for r in rows)
    return f"HR@10 over milliseconds per request: {'; '.join(facts)}."


def _caption(rows: Sequence[Row], front: Sequence[bool], record: Record) -> str:
    names = [row.name for row, on in zip(rows, front, strict=True) if on]
    first = record.first.name
    standing = "" if first in names else f" {first} is not among them."
    one = len(names) == 1
    return (
        f"Up and to the left is better. Nothing here is both faster and better than {listed(names)}"
        f"{', the Pareto front' if not one else ', which alone is the Pareto front'}.{standing} "
        f"HR@10 on {users_of(rows)}; vertical lines are its intervals. One request at a time."
    )
