"""`windows`: ready examples in train.csv, valid.csv, test.csv, titles in items.csv; ids space separated, in order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from l2d.errors import ArtifactMissing
from l2d.interactions import SPLITS
from l2d.sources.columns import Columns
from l2d.sources.gather import read_titles
from l2d.sources.layout import Layout
from l2d.sources.reading import Reading, Request
from l2d.sources.tables import fault, open_table, whole

TIME_COLUMNS = ("timestamp", "timestamp_approx")


def read(request: Request) -> Reading:
    """Reads the examples exactly as given, in their order, with the times that are there.

    Raises:
        ArtifactMissing: one of the files is not there.
        DataError: an id that items.csv does not have, or lists of different length, by file and line.
    """
    folder = request.source if request.source.is_dir() else request.source.parent
    items = request.items or folder / "items.csv"
    for file in (items, *(folder / f"{name}.csv" for name in SPLITS)):
        if not file.is_file():
            raise ArtifactMissing(
                f"{file} is not there", cure="put train.csv, valid.csv, test.csv and items.csv in one folder"
            )
    table = open_table(items)
    titles = read_titles(table, Columns(item="item_id", title="title"))
    for item, text in titles.text.items():
        if not text.strip():  # dropping the item would change the given examples
            cure = "give it a title"
            raise fault(table, titles.record[item], "an item has no title", got=repr(text), expected="text", cure=cure)
    layout = Layout(titles.text, items)
    for done, name in enumerate(SPLITS):
        add_file(layout, folder / f"{name}.csv")
        if request.progress is not None:
            request.progress(done + 1, len(SPLITS))
    return replace(layout.reading(timed=True), titles=titles.text)


def add_file(layout: Layout, path: Path) -> None:
    """Adds the examples of one file."""
    table = open_table(path)
    time = next((name for name in TIME_COLUMNS if name in table.columns), None)
    history_times = "history_timestamps" if "history_timestamps" in table.columns else None
    needed = ["user_id", "history_item_ids", "item_id"]
    layout.require(table, needed)
    frame = whole(table, [*needed, *(name for name in (time, history_times) if name)])
    layout.add(
        table,
        users=frame["user_id"],
        histories=[(text or "").split() for text in frame["history_item_ids"].to_list()],
        targets=frame["item_id"].to_list(),
        times=frame[time].to_list() if time else None,
        history_times=[(text or "").split() for text in frame[history_times].to_list()] if history_times else None,
    )
