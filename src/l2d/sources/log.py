"""`log`: one record per interaction in CSV, TSV, JSON lines or Parquet; titles in the log or in an item file."""

from __future__ import annotations

from pathlib import Path

from l2d.errors import DataError
from l2d.sources.gather import gather, read_titles, with_items
from l2d.sources.reading import Reading, Request
from l2d.sources.tables import open_table

ITEM_STEMS = ("items", "item", "products", "product", "catalog", "catalogue", "articles", "metadata", "movies", "books")
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".json", ".inter", ".item")


def read(request: Request) -> Reading:
    """Reads a log and its titles.

    Raises:
        DataError: the folder does not show which file is the log, no title is to be had, or a file is bad.
    """
    source, items = locate(request.source)
    items = request.items or items
    reading = gather(open_table(source), request.columns, titles=items is None, progress=request.progress)
    if items is not None:
        return with_items(reading, read_titles(open_table(items), request.columns), items, all_items=True)
    if "title" not in reading.facts["columns"]:
        raise DataError(
            "the log has no titles",
            got=f"columns {', '.join(open_table(source).columns)}",
            expected="a title column, or an item file",
            cure="pass --items FILE (item id, title), or name the --title-column",
            file=source,
        )
    return reading


def locate(source: Path) -> tuple[Path, Path | None]:
    """The log in a folder, and its item file if there is one: a file called items, products, catalog, ...

    Raises:
        DataError: the folder holds no table, or several that could be the log.
    """
    if not source.is_dir():
        return source, None
    tables = [file for file in sorted(source.iterdir()) if file.is_file() and suffix(file) in TABLE_SUFFIXES]
    items = [file for file in tables if stem(file) in ITEM_STEMS or suffix(file) == ".item"]
    logs = [file for file in tables if file not in items]
    if len(logs) != 1 or len(items) > 1:
        raise DataError(
            f"{source} does not show which file is the log",
            got=", ".join(file.name for file in tables) or "no table",
            expected="one log, and at most one of items.csv, products.csv, ...",
            cure="give the log's path as SOURCE and the item file with --items",
        )
    return logs[0], items[0] if items else None


def stem(file: Path) -> str:
    """A file's name without its suffixes, lower case."""
    return file.name.split(".")[0].lower()


def suffix(file: Path) -> str:
    """A file's suffix before any `.gz`, lower case."""
    return Path(file.name.removesuffix(".gz")).suffix.lower()
