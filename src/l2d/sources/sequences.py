"""`sequences`: one line per user with all items in order (sequences.csv) and titles (items.csv); no times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ArtifactMissing, DataError
from l2d.sources.columns import Columns
from l2d.sources.gather import read_titles, with_items
from l2d.sources.reading import Codes, Reading, Request, note
from l2d.sources.tables import Table, fault, open_table
from l2d.sources.times import NO_INSTANT

LIST_COLUMNS = ("item_ids", "items", "sequence", "history")


def read(request: Request) -> Reading:
    """Reads the sequences in their order.

    Raises:
        ArtifactMissing: one of the files is not there.
        DataError: missing columns, a user that occurs twice, or no item in common with items.csv.
    """
    folder = request.source if request.source.is_dir() else request.source.parent
    source = folder / "sequences.csv" if request.source.is_dir() else request.source
    items = request.items or folder / "items.csv"
    for file in (source, items):
        if not file.is_file():
            raise ArtifactMissing(
                f"{file} is not there", cure="put sequences.csv and items.csv in one folder, or pass --items"
            )
    table = open_table(source)
    titles = read_titles(open_table(items), Columns(title=request.columns.title))
    reading = read_sequences(table, request.columns)
    if request.progress is not None:
        request.progress(1, 1)
    return with_items(reading, titles, items, all_items=True)


def read_sequences(table: Table, columns: Columns) -> Reading:
    """User column and space separated ids -> a Reading without titles."""
    user_column = columns.user or "user_id"
    item_column = columns.item or next((name for name in LIST_COLUMNS if name in table.columns), LIST_COLUMNS[0])
    for name in (user_column, item_column):
        if name not in table.columns:
            got, cure = f"columns {', '.join(map(repr, table.columns))}", "check the header, or give another --format"
            raise DataError(f"there is no column {name!r}", got=got, cure=cure, file=table.path, line=1)
    users, items = Codes(), Codes()
    parts, record = [], 0
    for batch in table.batches([user_column, item_column]):
        known = len(users)
        user = users.of(batch[user_column], table)
        lists = batch[item_column].fill_null("").str.extract_all(r"\S+")
        counts = lists.list.len().to_numpy()
        refuse_users(user, counts, known, record, table)
        parts.append((np.repeat(user, counts), items.of(lists.explode().drop_nulls(), table)))
        record += len(batch)
    user, item = (
        (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (np.array([]), np.array([]))
    )
    if not len(item):
        raise DataError(
            "there are no interactions", expected="at least one sequence", cure="check the file", file=table.path
        )
    facts = {"file": str(table.path), "columns": {"user": user_column, "items": item_column}, "time_unit": None}
    notes = [note("read", "sequences", len(users), table.path.name), note("read", "interactions", len(item))]
    return Reading(
        users.ids, items.ids, user, item, np.full(len(item), NO_INSTANT), {}, False, notes=notes, facts=facts
    )


def refuse_users(user: NDArray[np.int32], counts: NDArray[np.uint32], known: int, record: int, table: Table) -> None:
    """Refuses a line without a user, and a second line of the same user.

    Raises:
        DataError: with the line.
    """
    for place, (number, items) in enumerate(zip(user.tolist(), counts.tolist(), strict=True)):
        if number < 0 and items:
            raise fault(
                table, record + place, "a sequence has no user", got="an empty cell", expected="an id", cure="fix it"
            )
        if 0 <= number < known:
            cure = "join the user's lines into one"
            raise fault(
                table, record + place, "a user occurs twice", got=number + 1, expected="one line per user", cure=cure
            )
        known = max(known, number + 1)
