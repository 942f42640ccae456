"""Item files: one record per item, with an id, a title and perhaps more that is known of it."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from l2d.catalog.metadata import Metadata, plain
from l2d.errors import ConfigError
from l2d.sources.cleaning import clean_title
from l2d.sources.columns import Columns
from l2d.sources.gather import Titles, read_titles
from l2d.sources.tables import JsonLines, Table, fault, open_table

WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
TRUTH = {"true": True, "false": False}


def read_items(path: Path, columns: Columns | None = None) -> dict[str, str]:
    """Ids and cleaned titles in file order, from any table that `prepare` takes.

    Args:
        path: CSV, TSV, JSON lines or Parquet, perhaps gzipped.
        columns: given names; the rest is recognised.

    Raises:
        DataError: missing columns, no items, an item without id or title, or a repeated id.
    """
    return _items(open_table(path), columns)[0]


def read_metadata(
    path: Path, names: Sequence[str], columns: Columns | None = None, *, text: Container[str] = ()
) -> dict[str, Metadata]:
    """What some columns of an item file say of each item, by id in file order; an empty cell is None.

    JSON and Parquet have types. In other files a column is taken for numbers or truth values where all of its cells
    are spelt so, else for text; `007` is no number.

    Args:
        path: as in `read_items`.
        names: the columns.
        columns: of ids and titles.
        text: columns that are text, however their cells are spelt.

    Raises:
        ConfigError: a column that the file does not have.
        DataError: as `read_items`.
    """
    table = open_table(path)
    for name in names:
        if name not in table.columns:
            got = f"columns {', '.join(map(repr, table.columns))}"
            raise ConfigError(f"{path} has no column {name!r}", got=got, cure="name the right --metadata")
    _, found = _items(table, columns)
    records = list(_cells(table, names))
    read = [
        [plain(cell) for cell in cells] if isinstance(table, JsonLines) else _typed(cells, name in text)
        for name, cells in zip(names, zip(*records, strict=True), strict=True)
    ]
    return {item: {name: cells[place] for name, cells in zip(names, read, strict=True)} for item, place in found}


def _items(table: Table, columns: Columns | None) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """Cleaned titles by id, and the record that each stands in."""
    found: Titles = read_titles(table, columns or Columns())
    titles = {item: clean_title(text) for item, text in found.text.items()}
    for item, title in titles.items():
        if not title:
            raise fault(
                table, found.record[item], "an item has no title", got=repr(item), expected="a title",
                cure="give it one or remove it",
            )  # fmt: skip
    return titles, [(item, found.record[item]) for item in titles]


def _cells(table: Table, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    if isinstance(table, JsonLines):
        yield from table.values(names)
        return
    for batch in table.batches(names):
        yield from batch.iter_rows()


def _typed(cells: Sequence[Any], as_text: bool) -> list[Any]:
    """A column's cells as JSON values; text becomes what all of it is spelt like."""
    values = [None if isinstance(cell, str) and not cell.strip() else plain(cell) for cell in cells]
    there = [value.strip() for value in values if isinstance(value, str)]
    if as_text or not there or any(not isinstance(value, str | None) for value in values):
        return values
    for spelt, read in ((WHOLE.fullmatch, int), (NUMBER.fullmatch, float), (TRUTH.get, TRUTH.__getitem__)):
        if all(spelt(text) is not None for text in there):
            return [None if value is None else read(value.strip()) for value in values]
    return values
