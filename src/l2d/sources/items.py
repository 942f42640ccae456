"""Item files: one record per item, with an id and a title."""

from __future__ import annotations

from pathlib import Path

from l2d.sources.cleaning import clean_title
from l2d.sources.columns import Columns
from l2d.sources.gather import read_titles
from l2d.sources.tables import fault, open_table


def read_items(path: Path, columns: Columns | None = None) -> dict[str, str]:
    """Ids and cleaned titles in file order, from any table that `prepare` takes.

    Args:
        path: CSV, TSV, JSON lines or Parquet, perhaps gzipped.
        columns: given names; the rest is recognised.

    Raises:
        DataError: missing columns, no items, an item without id or title, or a repeated id.
    """
    table = open_table(path)
    found = read_titles(table, columns or Columns())
    titles = {item: clean_title(text) for item, text in found.text.items()}
    for item, title in titles.items():
        if not title:
            raise fault(
                table, found.record[item], "an item has no title", got=repr(item), expected="a title",
                cure="give it one or remove it",
            )  # fmt: skip
    return titles
