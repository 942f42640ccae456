"""The headline table: every row as it was given, quality on the left, costs on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from l2d.compare.report.figure import KINDS, kind_class, plain_table, scrolling
from l2d.compare.report.markup import Markup, join, tag
from l2d.compare.report.reading import METRIC, Record, Row, number, pair
from l2d.compare.report.strips import phase_bar, phase_ms
from l2d.compare.report.svg import clipped, mark
from l2d.compare.report.wording import NONE, TIMES, amount, count, probability, rate, signed
from l2d.costs import PHASES

BAR_WIDTH, BAR_HEIGHT = 64.0, 12.0
"""Pixels of the small bar that splits a row's time."""


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        group: the heading it stands under.
        name: its own heading.
        cell: what it says of a row.
    """

    group: str
    name: str
    cell: Callable[[Row], str]


def headline(record: Record) -> Markup:
    """The table of all rows in the order of the record."""
    columns = [*_quality(record), *_costs(record)]
    groups = {column.group: sum(other.group == column.group for other in columns) for column in columns}
    heads = tag(
        "thead",
        tag(
            "tr",
            tag("th", "row", scope="col", rowspan=2),
            *(tag("th", name, scope="colgroup", colspan=span) for name, span in groups.items()),
        ),
        tag("tr", *(tag("th", column.name, scope="col", class_=_edge(columns, i)) for i, column in enumerate(columns))),
    )
    body = [_line(row, columns, row.name == record.first.name) for row in record.rows]
    caption = tag("caption", "Quality and costs of all rows")
    table = tag("table", caption, heads, tag("tbody", *body), class_="headline")
    return join(tag("p", _introduction(record), class_="facts"), scrolling(table, "All rows"))


def all_metrics(record: Record) -> Markup:
    """Every metric of every row, by id and by title, folded away."""
    parts = []
    for key, name in (("metrics", "By item"), ("title_match", "By title")):
        metrics = list(dict.fromkeys(metric for row in record.rows for metric in row.data.get(key) or {}))
        metrics = [metric for metric in metrics if not metric.startswith("recall")]
        if metrics:
            body = [(row.name, *(rate(row.number(key, metric)) for metric in metrics)) for row in record.rows]
            table = plain_table(f"{name}, each row on its own users", ("row", *map(heading, metrics)), body)
            parts.append(tag("details", tag("summary", f"Every metric: {name.lower()}"), scrolling(table, name)))
    return join(*parts)


def heading(metric: str) -> str:
    """hr@10 as HR@10."""
    return metric.upper()


def _line(row: Row, columns: Sequence[Column], first: bool) -> Markup:
    facts = [row.kind, f"{count(users)} users" if (users := row.number("users")) else "", _seeds(row)]
    kind = tag("small", ", ".join(filter(None, facts)))
    name = tag("th", swatch(row.kind), tag("span", row.name, class_="name"), kind, scope="row")
    cells = (tag("td", column.cell(row), class_=_edge(columns, i)) for i, column in enumerate(columns))
    return tag("tr", name, *cells, class_="first" if first else None)


def _edge(columns: Sequence[Column], place: int) -> str | None:
    """The first column of a group has a line on its left."""
    return "edge" if place == 0 or columns[place - 1].group != columns[place].group else None


def _seeds(row: Row) -> str:
    seeds = row.number("seeds", "n")
    return f"{count(seeds)} seeds" if seeds and seeds > 1 else ""


def swatch(kind: str) -> Markup:
    """The mark of a kind as it is in the plots."""
    drawn = mark(KINDS.get(kind, "cross"), 0, 0, kind_class(kind), size=4.5)
    return tag("svg", drawn, viewBox="-7 -7 14 14", class_="swatch", aria_hidden="true")


def _quality(record: Record) -> list[Column]:
    columns = [
        Column("quality", "HR@10", _hits),
        Column("quality", "NDCG@10", lambda row: rate(row.number("metrics", "ndcg@10"))),
        Column("quality", "HR@10 by title", lambda row: rate(row.number("title_match", METRIC))),
    ]
    if record.mixed:
        sample = count(number(record.data, "sample_users"))
        cell = lambda row: rate(row.sample.number("metrics", METRIC))  # noqa: E731
        columns.append(Column("quality", f"HR@10, same {sample}", cell))
    if any(row.difference() for row in record.rows):
        first = record.first.name
        columns.append(Column(f"HR@10 minus {clipped(first)}", "difference", lambda row: _difference(row, first)))
        columns.append(Column(f"HR@10 minus {clipped(first)}", "p", _chance))
    return columns


def _costs(record: Record) -> list[Column]:
    single, load = "one request", "load"
    columns = [
        Column(single, "median ms", _latency),
        Column(single, "split", _parts),
        Column(single, "model calls", _calls),
        Column(load, "requests/s", _throughput),
        Column(load, "MiB", lambda row: amount(row.number("memory_mib"))),
    ]
    beam = record.beam.number("latency_ms", "p50") if record.beam else None
    if beam:
        columns.insert(1, Column(single, "speed-up over beam", lambda row: _speedup(row, beam)))
    return columns


def _hits(row: Row) -> Markup:
    span = row.interval()
    deviation = row.number("seeds", "sd", METRIC)
    return join(
        rate(row.number("metrics", METRIC)),
        tag("small", f"{rate(span[0])} to {rate(span[1])}") if span else None,
        tag("small", f"seeds ±{rate(deviation)}") if deviation is not None else None,
    )


def _difference(row: Row, first: str) -> Markup:
    if row.name == first:
        return tag("small", "compared with")
    test = row.difference()
    span = pair([test.get("low"), test.get("high")])
    verdict = row.verdict()
    return join(
        tag("span", signed(number(test, "difference")), class_=verdict),
        tag("small", f"{signed(span[0])} to {signed(span[1])}") if span else None,
    )


def _chance(row: Row) -> Markup:
    said = {"better": "better", "worse": "worse", "open": "open"}.get(row.verdict() or "")
    chance = number(row.difference(), "p_holm")
    return join(probability(chance), tag("small", said) if said else None)


def _parts(row: Row) -> Markup:
    """The shares of a row's phases as a bar of fixed width."""
    found = phase_ms(row)
    total = sum(found)
    if not total:
        return join(NONE)
    bars, reached = [], 0.0
    for place, ms in enumerate(found):
        wide = ms / total * BAR_WIDTH
        if ms:
            bars.append(phase_bar(place, reached, wide, 0, BAR_HEIGHT))
        reached += wide
    told = ", ".join(f"{name} {amount(ms)} ms" for name, ms in zip(PHASES, found, strict=True) if ms)
    box = f"0 0 {BAR_WIDTH:.0f} {BAR_HEIGHT:.0f}"
    return tag("svg", tag("title", told), *bars, viewBox=box, class_="split", role="img", aria_label=told)


def _calls(row: Row) -> Markup:
    drafts = row.number("draft_calls")
    small = tag("small", f"+ {amount(drafts)} drafts") if drafts else None
    return join(amount(row.number("model_calls")), small)


def _latency(row: Row) -> Markup:
    tail = row.number("latency_ms", "p95")
    return join(amount(row.number("latency_ms", "p50")), tag("small", f"p95 {amount(tail)}") if tail else None)


def _throughput(row: Row) -> Markup:
    batch, rate_ = row.number("batch"), row.number("requests_per_second")
    return join(
        count(rate_) if rate_ and rate_ >= 10 else amount(rate_),
        tag("small", f"batch {count(batch)}") if batch else None,
    )


def _speedup(row: Row, beam: float) -> str:
    own = row.number("latency_ms", "p50")
    return f"{amount(beam / own)} {TIMES}" if own else NONE


def _introduction(record: Record) -> str:
    lists = number(record.data, "list_length")
    searched = number(record.data, "searched_length")
    timed = f" Times are for lists of {count(lists)}." if lists else ""
    if searched and lists and searched > lists:
        timed += f" Decoders in language space are judged on lists of {count(searched)}, with as many beams."
    bars = " The bar splits a row's own time: " + ", ".join(PHASES) + "."
    split = f"On the {record.data['split']} split. " if record.data.get("split") else ""
    seen = "The items of each history are left out. " if record.excludes_seen else ""
    return f"{split}{seen}Below each figure its 95 % interval.{timed}{bars} MiB: what a row holds while it answers."
