"""How quality and latency move with a setting: M, the share of memory kept, the length of the list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l2d.compare.report.figure import Figure
from l2d.compare.report.markup import Markup
from l2d.compare.report.reading import METRIC, Record, find, number
from l2d.compare.report.scales import Linear, Log, Scale
from l2d.compare.report.svg import (
    GLYPH,
    WIDTH,
    Area,
    base_axis,
    clipped,
    group,
    mark,
    picture,
    rule,
    spread,
    trace,
    value_axis,
    words,
)
from l2d.compare.report.wording import amount, count, listed, rate, rate_ticks, ticked

HEIGHT = 320.0
STYLES = ("circle", "square", "triangle", "diamond", "hexagon", "cross")
"""Marks of the lines in their order; `plots.css` has a colour and a dash for each."""

USUAL = ("vote", "global", "local", "beam")
"""Decoders that keep their colour from figure to figure."""


@dataclass(frozen=True)
class Series:
    """One line.

    Args:
        name: of the decoder.
        points: (x, y) from left to right.
        level: a height that holds everywhere, for a decoder without the setting.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    level: float | None = None


@dataclass(frozen=True)
class Chart:
    """What is common to the figures of this file.

    Args:
        ident: anchor of the figure.
        title: of the figure.
        x_name: what the horizontal axis counts.
        y_name: what the vertical axis counts.
        x_text: writes a value of x.
        y_text: writes a value of y.
    """

    ident: str
    title: str
    x_name: str
    y_name: str
    x_text: Callable[[float], str]
    y_text: Callable[[float], str]

    def draw(self, series: Sequence[Series], x: Scale, y: Scale, area: Area, rings: Mapping[str, float]) -> Markup:
        """The lines with their names at the right end; a ring marks the value of x that is in use."""
        labels = rate_ticks(y.ticks) if self.y_text is rate else [ticked(tick) for tick in y.ticks]
        return picture(
            self.ident,
            self.title,
            "; ".join(self._told(line) for line in series) + ".",
            HEIGHT,
            value_axis(area, y, labels, self.y_name),
            base_axis(area, x, [self.x_text(tick) for tick in x.ticks], self.x_name),
            *(self._line(line, x, y, area, rings) for line in series),
            self._names(series, y, area),
        )

    def _line(self, line: Series, x: Scale, y: Scale, area: Area, rings: Mapping[str, float]) -> Markup:
        style = style_of(line.name)
        if line.level is not None:
            return rule(area.left, y(line.level), area.right, y(line.level), f"line s{style}")
        parts: list[Markup] = [trace([(x(a), y(b)) for a, b in line.points], f"line s{style}")]
        for a, b in line.points:
            if rings.get(line.name) == a:
                parts.append(mark("circle", x(a), y(b), "halo", size=9))
            title = f"{line.name}: {self.y_text(b)} at {self.x_text(a)}"
            parts.append(mark(STYLES[style], x(a), y(b), f"s{style}", title, 4))
        return group(*parts)

    def _names(self, series: Sequence[Series], y: Scale, area: Area) -> Markup:
        ends = [y(line.points[-1][1] if line.level is None else line.level) for line in series]
        places = spread(ends, 15, area.top, area.bottom)
        return group(
            *(
                words(area.right + 10, place + 4, clipped(line.name), f"name s{style_of(line.name)}")
                for line, place in zip(series, places, strict=True)
            )
        )

    def _told(self, line: Series) -> str:
        if line.level is not None:
            return f"{line.name} {self.y_text(line.level)} throughout"
        return f"{line.name} " + ", ".join(f"{self.y_text(b)} at {self.x_text(a)}" for a, b in line.points)


def neighbours(record: Record) -> Figure:
    """Quality against M, the number of nearest entries that local and vote look at."""
    chart = Chart("neighbours", "Quality against M", "neighbours M (log scale)", "HR@10", count, rate)
    points = record.points("neighbours")
    series = _series(points, "neighbours", METRIC)
    if not series:
        return _absent(chart, "Quality against M was not measured in this comparison.")
    values = [value for line in series for _, value in line.points] + [line.level for line in series if line.level]
    area = _area(series)
    x = Log.fitting(_xs(series), area.left, area.right, at=_xs(series))
    y = Linear.fitting(values, area.bottom, area.top, zero=False)
    rings = {line.name: value for line in series if (value := number(find(_fitted(record), line.name))) is not None}
    plot = chart.draw(series, x, y, area, rings)
    return Figure(chart.ident, chart.title, plot, _neighbours_caption(record, series, rings), *_quality_table(points))


def kept(record: Record) -> Figure:
    """Quality against the share of the memory that is kept."""
    chart = Chart("kept", "Quality with less memory", "share of entries kept", "HR@10", percent, rate)
    points = record.points("memory")
    series = _series(points, "share", METRIC)
    if not series:
        return _absent(chart, "Quality with a part of the memory was not measured in this comparison.")
    area = _area(series)
    x = Linear(0.0, 1.0, area.left, area.right, tuple(_xs(series)))
    y = Linear.fitting([value for line in series for _, value in line.points], area.bottom, area.top)
    plot = chart.draw(series, x, y, area, {})
    entries = number(find(record.data, "curves", "memory", "entries"))
    whole = f" of {count(entries)}" if entries else ""
    caption = f"Entries{whole} drawn at random, M as fitted on the whole memory; on {_judged(record, 'memory')}."
    return Figure(chart.ident, chart.title, plot, f"{_kept_lesson(series)}{caption}", *_quality_table(points))


def lengths(record: Record) -> Figure:
    """Latency against the length of the list."""
    y_name = "ms for one request (median, log scale)"
    chart = Chart("lengths", "Latency against list length", "list length k (log scale)", y_name, count, amount)
    points = [point for point in record.points("length") if (number(point, "p50_ms") or 0) > 0]
    series = _series(points, "k", "p50_ms")
    if not series:
        return _absent(chart, "Latency against list length was not measured in this comparison.")
    area = _area(series)
    x = Log.fitting(_xs(series), area.left, area.right, at=_xs(series))
    y = Log.fitting([value for line in series for _, value in line.points], area.bottom, area.top)
    requests = number(find(record.data, "curves", "length", "requests"))
    over = f" Medians of {count(requests)} requests." if requests else ""
    body = tuple(
        (str(point.get("decoder")), count(number(point, "k")), amount(number(point, "p50_ms"))) for point in points
    )
    plot = chart.draw(series, x, y, area, {})
    return Figure(chart.ident, chart.title, plot, _growth(series) + over, ("decoder", "k", "p50 ms"), body)


def percent(share: float) -> str:
    """A share as whole percent."""
    return f"{100 * share:.0f} %"


def style_of(name: str) -> int:
    """The place of a decoder in `STYLES`."""
    return USUAL.index(name) if name in USUAL else len(USUAL) + sum(map(ord, name)) % (len(STYLES) - len(USUAL))


def _series(points: Sequence[Mapping[str, Any]], x: str, y: str) -> list[Series]:
    """Lines in the order of their first points. A point whose x is null holds everywhere; alone it is no curve."""
    found: dict[str, list[tuple[float, float]]] = {}
    levels: dict[str, float] = {}
    for point in points:
        name, a, b = str(point.get("decoder")), number(point, x), number(point, y)
        if b is None or (a is None and point.get(x) is not None) or (a is not None and a <= 0):
            continue
        if a is None:
            levels[name] = b
        else:
            found.setdefault(name, []).append((a, b))
    lines = [Series(name, tuple(sorted(pairs))) for name, pairs in found.items()]
    return lines + [Series(name, (), level) for name, level in levels.items()] if lines else []


def _xs(series: Sequence[Series]) -> list[float]:
    return sorted({x for line in series for x, _ in line.points})


def _area(series: Sequence[Series]) -> Area:
    margin = 14 + max(len(clipped(line.name)) for line in series) * GLYPH
    return Area(44, 40, WIDTH - margin, HEIGHT - 46)


def _absent(chart: Chart, sentence: str) -> Figure:
    return Figure(chart.ident, chart.title, None, sentence, (), ())


def _judged(record: Record, curve: str) -> str:
    users = number(find(record.data, "curves", curve, "users"))
    return f"{count(users)} users" if users else "users whose number is not recorded"


def _fitted(record: Record) -> object:
    return find(record.data, "curves", "neighbours", "fitted")


def _neighbours_caption(record: Record, series: Sequence[Series], rings: Mapping[str, float]) -> str:
    best = [
        f"{line.name} is best at M = {count(max(line.points, key=lambda point: point[1])[0])}"
        for line in series
        if line.points
    ]
    used = f" A ring marks the fitted M ({listed([f'{n} {count(m)}' for n, m in rings.items()])})." if rings else ""
    flat = [line.name for line in series if line.level is not None]
    level = f" {listed(flat)} has no M: a level line." if flat else ""
    return f"{listed(best)}.{used}{level} The axis does not begin at 0. On {_judged(record, 'neighbours')}."


def _kept_lesson(series: Sequence[Series]) -> str:
    """What remains of each decoder's quality at the share nearest 30 %, the paper's figure."""
    near = min((x for x in _xs(series) if x < 1), key=lambda share: abs(share - 0.3), default=None)
    curves = {line.name: dict(line.points) for line in series}
    parts = [
        f"{name} {percent(curve[near] / curve[1.0])}"
        for name, curve in curves.items()
        if near in curve and curve.get(1.0)
    ]
    return f"With {percent(near)} of the entries remains of HR@10: {listed(parts)}. " if near and parts else ""


def _growth(series: Sequence[Series]) -> str:
    """How much longer the longest list takes than the shortest."""
    low, high = _xs(series)[0], _xs(series)[-1]
    curves = {line.name: dict(line.points) for line in series}
    parts = [
        f"{amount(curve[high] / curve[low])} times for {name}"
        for name, curve in curves.items()
        if high in curve and curve.get(low)
    ]
    return f"A list of {count(high)} takes, compared with a list of {count(low)}, {listed(parts)}." if parts else ""


def _quality_table(points: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    setting = "neighbours" if any("neighbours" in point for point in points) else "share"
    write = count if setting == "neighbours" else lambda value: "" if value is None else percent(value)
    body = tuple(
        (
            str(point.get("decoder")),
            write(number(point, setting)),
            rate(number(point, METRIC)),
            rate(number(point, "ndcg@10")),
        )
        for point in points
    )
    return ("decoder", "M" if setting == "neighbours" else "kept", "HR@10", "NDCG@10"), body
