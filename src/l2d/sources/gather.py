"""A table of interactions and a table of items -> a Reading: the common part of all formats that are logs."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.errors import DataError
from l2d.sources.columns import Columns, choose
from l2d.sources.reading import Codes, Progress, Reading, as_text, bare, note, without_decimals
from l2d.sources.tables import Table, fault
from l2d.sources.times import NO_INSTANT, Clock


@dataclass
class Titles:
    """Titles by item id, with how often a source contradicted itself.

    Args:
        text: raw titles.
        conflicting: items that came with a second, different title.
        repeated: item records beyond the first of their id.
        record: place of each id's first record in an item file.
    """

    text: dict[str, str] = field(default_factory=dict)
    conflicting: set[str] = field(default_factory=set)
    repeated: int = 0
    record: dict[str, int] = field(default_factory=dict)

    def add(self, item: str, title: str) -> None:
        """The first non-empty title of an item counts."""
        known = self.text.get(item, "")
        if not known.strip():
            self.text[item] = title
        elif title.strip() and title != known:
            self.conflicting.add(item)

    def notes(self) -> list[dict[str, Any]]:
        """What to report."""
        found = []
        if self.conflicting:
            found.append(note("found", "items", len(self.conflicting), "several titles; the first one counts"))
        if self.repeated:
            found.append(note("dropped", "item records", self.repeated, "an earlier record has the same id"))
        return found


def gather(table: Table, columns: Columns, *, titles: bool = True, progress: Progress | None = None) -> Reading:
    """Reads interactions into integer codes; titles too, where the table has such a column.

    Args:
        table: one record per interaction.
        columns: given names; the rest is recognised. A table without a time column is taken in its order.
        titles: whether a title column of the table counts.
        progress: told the records read.

    Raises:
        DataError: a missing column, no usable record, or a bad time.
    """
    roles = {
        "user": choose(table.path, table.columns, "user", columns.user),
        "item": choose(table.path, table.columns, "item", columns.item),
        "time": choose(table.path, table.columns, "time", columns.time, required=False),
        "title": choose(table.path, table.columns, "title", columns.title, required=False) if titles else None,
    }
    used = {role: name for role, name in roles.items() if name is not None}
    if len(set(used.values())) < len(used):
        cure = "name them with --user-column, --item-column, --time-column, --title-column"
        raise DataError(
            "one column plays two roles", got=used, expected="different columns", cure=cure, file=table.path
        )
    log = _Log(timed="time" in used)
    total = max(1, table.estimate())
    for batch in table.batches(list(used.values())):
        log.add(batch.select(pl.col(name).alias(role) for role, name in used.items()), table)
        if progress is not None:
            progress(min(log.records, total), total)
    if progress is not None:
        progress(total, total)
    facts = {"file": str(table.path), "columns": used, "time_unit": log.clock.unit}
    return replace(log.reading(table), facts=facts)


class _Log:
    """Interactions read so far."""

    def __init__(self, *, timed: bool) -> None:
        self.clock, self.timed = Clock(), timed
        self.users, self.items = Codes(), Codes()
        self.titles = Titles()
        self.parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]] = []
        self.records = self.kept = 0

    def add(self, batch: pl.DataFrame, table: Table) -> None:
        """Codes one batch; records without a user or an item are left out."""
        user, item = self.users.of(batch["user"], table), self.items.of(batch["item"], table)
        complete = np.flatnonzero((user >= 0) & (item >= 0))
        if self.timed:
            values = batch["time"] if len(complete) == len(batch) else batch["time"].gather(complete)
            instant = self.clock.instants(values, self.records + complete, table)
        else:
            instant = np.full(len(complete), NO_INSTANT)
        if "title" in batch.columns:
            self._add_titles(batch["title"], item)
        self.parts.append((user[complete], item[complete], instant))
        self.records += len(batch)
        self.kept += len(complete)

    def _add_titles(self, titles: pl.Series, item: NDArray[np.int32]) -> None:
        if titles.dtype != pl.String:
            titles = titles.cast(pl.String, strict=False)
        pairs = pl.DataFrame({"item": item, "title": titles}).filter(pl.col("item") >= 0).drop_nulls()
        ids = self.items.ids
        for code, title in pairs.unique(maintain_order=True).iter_rows():
            self.titles.add(ids[code], title)

    def reading(self, table: Table) -> Reading:
        if not self.kept:
            cure = "check the file, and which columns are the user and the item"
            raise DataError("there are no interactions", got=f"{self.records} records", file=table.path, cure=cure)
        notes = [note("read", "records", self.records, table.path.name)]
        if self.records > self.kept:
            notes.append(note("dropped", "records", self.records - self.kept, "no user or no item"))
        user, item, instant = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        self.parts.clear()
        user_ids, user, renamed_users = integral(self.users.ids, user)
        item_ids, item, renamed_items = integral(self.items.ids, item)
        titles = self.titles.text
        if renamed_items:
            titles = {name.removesuffix(".0"): title for name, title in titles.items()}
        for what, renamed in (("user ids", renamed_users), ("item ids", renamed_items)):
            if renamed:
                notes.append(note("changed", what, renamed, "integers that were written as 1.0"))
        return Reading(user_ids, item_ids, user, item, instant, titles, self.timed, notes=notes + self.titles.notes())


def integral(ids: tuple[str, ...], codes: NDArray[np.int32]) -> tuple[tuple[str, ...], NDArray[np.int32], int]:
    """Ids and codes after `without_decimals`, and how many ids it changed."""
    found = without_decimals(ids)
    return (ids, codes, 0) if found is None else (found[0], found[1][codes], len(ids))


def read_titles(table: Table, columns: Columns, *, only: Container[str] | None = None, repeats: bool = False) -> Titles:
    """Reads an item table: one record per item, in file order.

    Args:
        table: with an item and a title column.
        columns: given names count where the table has them; else they are recognised.
        only: leave other items out (metadata of a whole shop).
        repeats: whether an id may occur twice; the first record counts then.

    Raises:
        DataError: missing columns, a record without an id, or a repeated id.
    """
    item = choose(table.path, table.columns, "item", columns.item if columns.item in table.columns else None)
    title = choose(table.path, table.columns, "title", columns.title if columns.title in table.columns else None)
    titles, record = Titles(), 0
    for batch in table.batches([str(item), str(title)]):
        ids = as_text(batch[str(item)], table)
        for name, text in zip(ids, batch[str(title)].cast(pl.String, strict=False), strict=True):
            name = bare(name or "")
            if (only is None or name in only) and (name or text):
                _add_item(titles, name, text or "", record, table, repeats)
            record += 1
    if not titles.record and only is None:
        raise DataError(
            "the item file has no items", expected="one record per item", cure="check the file", file=table.path
        )
    if without_decimals(tuple(titles.text)) is not None:
        titles.text = {name.removesuffix(".0"): text for name, text in titles.text.items()}
        titles.record = {name.removesuffix(".0"): place for name, place in titles.record.items()}
    return titles


def _add_item(titles: Titles, name: str, text: str, record: int, table: Table, repeats: bool) -> None:
    if not name:
        raise fault(
            table, record, "an item has no id", got=repr(text), expected="an id", cure="give it one or remove it"
        )
    if titles.record.setdefault(name, record) != record:
        titles.repeated += 1
        if not repeats:
            cure = "merge the records or rename one"
            raise fault(table, record, "an item id occurs twice", got=repr(name), expected="each id once", cure=cure)
    titles.add(name, text)


def with_items(reading: Reading, titles: Titles, path: Path, *, all_items: bool) -> Reading:
    """Joins a log with the titles of an item file.

    Args:
        reading: the log; titles of its own are replaced.
        titles: of the item file.
        path: the item file.
        all_items: whether items that nobody took belong to the catalogue; if so the file's order is the row order.

    Raises:
        DataError: the two have no item in common.
    """
    if not any(item in titles.text for item in reading.item_ids):
        raise DataError(
            "no item of the log is in the item file",
            got=f"ids like {reading.item_ids[0]!r} in the log and {next(iter(titles.text), '')!r} here",
            expected="the same ids",
            cure="check --items and --item-column",
            file=path,
        )
    notes = [*reading.notes, note("read", "items", len(titles.text), path.name), *titles.notes()]
    facts = {**reading.facts, "items_file": str(path)}
    if not all_items:
        return replace(reading, titles=titles.text, notes=notes, facts=facts)
    codes = Codes(titles.text)
    number = np.array([codes.number(item) for item in reading.item_ids], dtype=np.int32)
    return replace(reading, item_ids=codes.ids, item=number[reading.item], titles=titles.text, notes=notes, facts=facts)
