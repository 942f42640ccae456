"""What every figure is: a plot, a caption, and the same numbers as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from l2d.compare.report.markup import Markup, tag
from l2d.compare.report.reading import Row
from l2d.compare.report.wording import count

KINDS = {"latent": "circle", "language": "square", "peer": "triangle", "baseline": "diamond"}
"""Kinds of contestant and the mark of each; the colour is in the style sheet."""


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Args:
        ident: its anchor.
        title: what is shown.
        plot: None where the record has no data for it; the caption then says so.
        caption: what to see, and on whom it was measured.
        header: names of the table's columns.
        body: the table's rows; the first cell names its row.
    """

    ident: str
    title: str
    plot: Markup | None
    caption: str
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]

    def markup(self) -> Markup:
        """The figure as HTML."""
        words = tag("figcaption", self.caption)
        if self.plot is None:
            return tag("figure", tag("h3", self.title), words, id=self.ident, class_="absent")
        return tag("figure", tag("h3", self.title), self.plot, words, self._numbers(), id=self.ident)

    def _numbers(self) -> Markup:
        table = plain_table(f"{self.title}: the numbers", self.header, self.body)
        return tag("details", tag("summary", "The numbers"), scrolling(table, f"{self.title}: the numbers"))


def plain_table(caption: str, header: Sequence[str], body: Iterable[Sequence[str]]) -> Markup:
    """A table whose rows are named by their first cell."""
    heads = tag("tr", *(tag("th", name, scope="col") for name in header))
    rows = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in body]
    return tag("table", tag("caption", caption), tag("thead", heads), tag("tbody", *rows))


def scrolling(table: Markup, name: str) -> Markup:
    """A box that scrolls sideways by itself, also from the keyboard."""
    return tag("div", table, class_="scroll", role="region", aria_label=name, tabindex=0)


def kind_class(kind: str) -> str:
    """The style of a kind."""
    return kind if kind in KINDS else "other"


def users_of(rows: Sequence[Row]) -> str:
    """On whom some rows were judged, in words."""
    numbers = {row.number("users") for row in rows}
    if len(numbers) == 1:
        only = numbers.pop()
        return "users whose number is not recorded" if only is None else f"the same {count(only)} users"
    return "different users (see the table)"
