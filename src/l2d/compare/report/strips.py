"""Charts with one line per contestant: differences with intervals, slices of the users, milliseconds by phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from l2d.compare.report.figure import KINDS, Figure, kind_class, users_of
from l2d.compare.report.markup import Markup, tag
from l2d.compare.report.reading import METRIC, Record, Row, number, pair
from l2d.compare.report.scales import Linear
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
    words,
)
from l2d.compare.report.wording import amount, count, probability, rate, rate_ticks, signed, ticked
from l2d.costs import PHASES

PITCH = 23.0
"""Pixels from one contestant to the next."""

FREQUENCIES = {"freq_0": "never", "freq_1_2": "1\N{EN DASH}2", "freq_3_5": "3\N{EN DASH}5", "freq_6_more": "6 or more"}
TIMES = {"same_time": "same time", "later": "later"}
"""Slices by their names in the record, with those in the legend."""

SLICE_SHAPES = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Strip:
    """A chart whose lines are contestants.

    Args:
        ident: anchor of the figure.
        title: of the figure.
        x_name: what the horizontal axis counts.
        x_text: writes the ticks.
        draw: the marks of a row at the height y.
        tell: the same in words.
        right: margin on the right, for numbers behind bars.
    """

    ident: str
    title: str
    x_name: str
    x_text: Callable[[tuple[float, ...]], list[str]]
    draw: Callable[[Row, Linear, float], Markup]
    tell: Callable[[Row], str]
    right: float = 14.0

    def picture(self, rows: Sequence[Row], values: Sequence[float], keys: Sequence[tuple[Markup, str]] = ()) -> Markup:
        """The chart; its axis reaches from 0 over all values."""
        signs, top = legend(keys) if keys else (None, -12.0)
        names = [clipped(row.name) for row in rows]
        left, top = 16 + max(map(len, names)) * GLYPH, top + 18
        area = Area(left, top, WIDTH - self.right, top + PITCH * len(rows))
        x = Linear.fitting(values, area.left, area.right, wanted=4)
        lines = []
        for place, (row, name) in enumerate(zip(rows, names, strict=True)):
            y = area.top + PITCH * (place + 0.5)
            lines.append(group(words(area.left - 12, y + 4.5, name, "name", "end"), self.draw(row, x, y)))
        axis = base_axis(area, x, self.x_text(x.ticks), self.x_name, grid=True)
        zero = rule(x(0.0), area.top, x(0.0), area.bottom, "base")
        told = "; ".join(map(self.tell, rows)) + "."
        return picture(self.ident, self.title, told, area.bottom + 46, signs, axis, zero, *lines)


def differences(record: Record) -> Figure:
    """Each row's HR@10 minus the first row's, with its paired interval."""
    first = record.first.name
    name = f"HR@10 minus {first}"
    header = ("row", name, "low", "high", "p (Holm)", "users")
    strip = Strip("differences", f"Difference to {first}", name, signed_ticks, _difference_mark, _difference_told)
    rows = [row for row in record.rows if _span(row) and number(row.difference(), "difference") is not None]
    if not rows:
        return Figure(strip.ident, strip.title, None, "No row was tested against another.", header, ())
    plot = strip.picture(rows, [bound for row in rows for bound in _span(row) or ()])
    caption = (
        f"Right of the line is better than {first}, left of it worse. Bars are paired 95 % intervals over the users "
        "that both answered."
    )
    return Figure(strip.ident, strip.title, plot, caption, header, tuple(map(_difference_cells, rows)))


def frequency(record: Record) -> Figure:
    """Quality by how often the target was a target in training."""
    caption = (
        "By how many training examples have the target. What learns an item from its examples cannot list one that "
        "has none."
    )
    return _slices(record, "frequency", "Sparse and dense items", FREQUENCIES, caption)


def times(record: Record) -> Figure:
    """Quality on targets of the same time as the last item against later ones."""
    caption = (
        "Same time: the target bears the time of the history's last item. Where a log knows days only, what follows "
        "within a day is the order of its file, and counting that order wins; later targets are the harder question."
    )
    return _slices(record, "times", "Same time and later", TIMES, caption)


def phases(record: Record) -> Figure:
    """Where the milliseconds of one request go."""
    header = ("row", *(f"{phase} ms" for phase in PHASES), "sum ms")
    strip = Strip("phases", "Time by phase", "milliseconds of one request", amounts, phase_bars, _phases_told, 56.0)
    rows = [row for row in record.rows if phase_ms(row)]
    if not rows:
        return Figure(strip.ident, strip.title, None, "No row was timed by phase.", header, ())
    keys = [(phase_bar(place, -6, 12, -6, 12), phase) for place, phase in enumerate(PHASES)]
    plot = strip.picture(rows, [sum(phase_ms(row)) for row in rows], keys)
    caption = (
        "Means of single requests. Tokenise: titles to token ids; prefill: the pass that reads the prompt; decode: "
        "every later pass of a model; search: all that is not a model, and a peer's whole answer."
    )
    body = tuple((row.name, *(amount(ms) for ms in [*phase_ms(row), sum(phase_ms(row))])) for row in rows)
    return Figure(strip.ident, strip.title, plot, caption, header, body)


def phase_ms(row: Row) -> list[float]:
    """Milliseconds by phase, in the order of `PHASES`; empty if the row was not timed."""
    found = [row.number("latency_ms", phase) for phase in PHASES]
    return [] if all(ms is None for ms in found) else [max(ms or 0.0, 0.0) for ms in found]


def phase_bar(place: int, x: float, width: float, y: float, height: float, title: str | None = None) -> Markup:
    """One phase: its colour, and over it its texture (`page.py` defines them), for those who see no hues."""
    sides = {"x": x, "y": y, "width": width, "height": height}
    words_ = None if title is None else tag("title", title)
    return group(tag("rect", words_, **sides, class_=f"p{place}"), tag("rect", **sides, class_=f"texture t{place}"))


def phase_bars(row: Row, x: Linear, y: float) -> Markup:
    """The phases of a row end to end, and their sum."""
    parts, reached = [], 0.0
    for place, ms in enumerate(phase_ms(row)):
        if ms:
            title = f"{row.name}, {PHASES[place]}: {amount(ms)} ms"
            parts.append(phase_bar(place, x(reached), x(reached + ms) - x(reached), y - 7, 14, title))
        reached += ms
    return group(*parts, words(x(reached) + 6, y + 4.5, amount(reached), "tick"))


def rates(ticks: tuple[float, ...]) -> list[str]:
    """Ticks of a share."""
    return rate_ticks(ticks)


def amounts(ticks: tuple[float, ...]) -> list[str]:
    """Ticks of an amount."""
    return [ticked(tick) for tick in ticks]


def signed_ticks(ticks: tuple[float, ...]) -> list[str]:
    """Ticks of a difference of shares."""
    return [f"+{text}" if tick > 0 else text for tick, text in zip(ticks, rate_ticks(ticks), strict=True)]


def _span(row: Row) -> tuple[float, float] | None:
    return pair([row.difference().get("low"), row.difference().get("high")])


def _difference_mark(row: Row, x: Linear, y: float) -> Markup:
    low, high = _span(row) or (0.0, 0.0)
    kind = kind_class(row.kind)
    middle = number(row.difference(), "difference") or 0.0
    bar = rule(x(low), y, x(high), y, f"span {kind}")
    return group(bar, mark(KINDS.get(row.kind, "cross"), x(middle), y, kind, _difference_told(row), 5))


def _difference_told(row: Row) -> str:
    low, high = _span(row) or (None, None)
    return f"{row.name} {signed(number(row.difference(), 'difference'))}, from {signed(low)} to {signed(high)}"


def _difference_cells(row: Row) -> tuple[str, ...]:
    test, span = row.difference(), _span(row) or (None, None)
    figures = [number(test, "difference"), *span]
    return (row.name, *map(signed, figures), probability(number(test, "p_holm")), count(number(test, "users")))


def _phases_told(row: Row) -> str:
    return f"{row.name} " + ", ".join(f"{name} {amount(ms)}" for name, ms in zip(PHASES, phase_ms(row), strict=True))


def _slices(record: Record, ident: str, title: str, names: Mapping[str, str], caption: str) -> Figure:
    """HR@10 of every row on some parts of the users that all rows answered."""
    present = {part: name for part, name in names.items() if any(_part(row, part) is not None for row in record.shared)}
    rows = [row for row in record.shared if any(_part(row, part) is not None for part in present)]
    if not rows:
        return Figure(ident, title, None, "The record has no figures for these parts of the users.", (), ())
    styles = {part: (SLICE_SHAPES[place], f"q{place} of{len(names)}") for place, part in enumerate(names)}

    def parts(row: Row) -> Iterator[tuple[str, float]]:
        return ((part, value) for part in present if (value := _part(row, part)) is not None)

    def draw(row: Row, x: Linear, y: float) -> Markup:
        found = [(part, x(value), f"{row.name}, {present[part]}: {rate(value)}") for part, value in parts(row)]
        ends = [at for _, at, _ in found]
        thread = rule(min(ends), y, max(ends), y, "thread")
        return group(thread, *(mark(styles[part][0], at, y, styles[part][1], told) for part, at, told in found))

    def tell(row: Row) -> str:
        return f"{row.name} " + ", ".join(f"{present[part]} {rate(value)}" for part, value in parts(row))

    strip = Strip(ident, title, "HR@10", rates, draw, tell)
    keys = [(mark(styles[part][0], 0, 0, styles[part][1]), name) for part, name in present.items()]
    plot = strip.picture(rows, [value for row in rows for _, value in parts(row)], keys)
    header = ("row", *(f"{name} ({_users(rows, part)} users)" for part, name in present.items()))
    body = tuple((row.name, *(rate(_part(row, part)) for part in present)) for row in rows)
    return Figure(ident, title, plot, f"{caption} On {users_of(rows)}.", header, body)


def _part(row: Row, part: str) -> float | None:
    return row.number("slices", part, METRIC)


def _users(rows: Sequence[Row], part: str) -> str:
    numbers = {row.number("slices", part, "users") for row in rows}
    return count(numbers.pop()) if len(numbers) == 1 else "differing"
