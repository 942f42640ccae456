"""The page: findings, table, plots, method, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from l2d.compare.report.curves import kept, lengths, neighbours
from l2d.compare.report.figure import Figure
from l2d.compare.report.frontier import frontier
from l2d.compare.report.markup import Markup, join, tag
from l2d.compare.report.prose import in_short, machine_words, measured
from l2d.compare.report.reading import Record, find, mapping
from l2d.compare.report.strips import differences, frequency, phases, times
from l2d.compare.report.tables import all_metrics, headline
from l2d.errors import DataError


def render(record: Mapping[str, Any]) -> str:
    """The report of a comparison as one HTML file: no script, no font, no image and no address outside it.

    A figure whose data the record lacks is left out, and a sentence says so.

    Args:
        record: what `l2d compare --json` writes.

    Raises:
        DataError: the record has no rows.
    """
    read = Record.of(record)
    title = f"{mapping(record.get('run')).get('name') or 'Recommenders'} compared"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", _style("colours.css"), _style("page.css")),
    )
    body = tag("body", _textures(), tag("main", _opening(read, title), *_sections(read)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def frontier_svg(record: Mapping[str, Any]) -> str:
    """The plot of quality against latency as an SVG file of its own, for a README.

    Raises:
        DataError: the record has no rows, or none of them was timed.
    """
    plot = frontier(Record.of(record)).plot
    if plot is None:
        raise DataError("there is nothing to draw", got="no timed row", expected="quality and latency of some rows")
    opening, rest = plot.removeprefix("<svg").split(">", 1)
    return f'<svg xmlns="http://www.w3.org/2000/svg"{opening}>{tag("style", _style("colours.css"))}{rest}\n'


def _opening(record: Record, title: str) -> Markup:
    run = mapping(record.data.get("run"))
    facts = [str(fact) for fact in (find(run, "backbone", "name"), machine_words(record), run.get("date")) if fact]
    lead = "What latent-space decoding replaces and what it must beat, measured in one run on one machine."
    facts_line = tag("p", *(join(tag("span", fact), " ") for fact in facts), class_="facts") if facts else None
    return tag("header", tag("h1", title), tag("p", lead, class_="lead"), facts_line)


def _sections(record: Record) -> list[Markup]:
    hero = frontier(record)
    rest = [
        differences(record),
        phases(record),
        frequency(record),
        times(record),
        neighbours(record),
        kept(record),
        lengths(record),
    ]
    drawn, absent = [figure for figure in rest if figure.plot], [figure for figure in rest if not figure.plot]
    return [
        tag(
            "div",
            tag("section", tag("h2", "In short"), in_short(record)),
            tag("section", tag("h2", hero.title), hero.markup(), class_="hero"),
            class_="top",
        ),
        tag("section", tag("h2", "All rows"), headline(record), all_metrics(record)),
        tag(
            "section",
            tag("h2", "In detail"),
            tag("div", *(figure.markup() for figure in drawn), class_="grid-of"),
            _missing(absent),
        ),
        tag("section", tag("h2", "How it was measured"), measured(record)),
    ]


def _missing(figures: list[Figure]) -> Markup | None:
    if not figures:
        return None
    return tag("div", *(tag("p", tag("b", f"{figure.title}. "), figure.caption) for figure in figures), class_="absent")


def _textures() -> Markup:
    """Patterns that tell the phases of a bar apart without their hues."""
    stripes = tag(
        "pattern",
        tag("path", d="M-1,5L5,-1M3,9L9,3", class_="weave"),
        id="stripes",
        width=8,
        height=8,
        patternUnits="userSpaceOnUse",
    )
    dots = tag(
        "pattern",
        tag("circle", cx=2.5, cy=2.5, r=1, class_="dot"),
        id="dots",
        width=5,
        height=5,
        patternUnits="userSpaceOnUse",
    )
    return tag("svg", tag("defs", stripes, dots), class_="textures", width=0, height=0, aria_hidden="true")


@cache
def _style(name: str) -> Markup:
    return Markup(files("l2d.compare.report").joinpath(name).read_text(encoding="utf-8"))
