"""Ready examples laid out one after another as a log: each window's history and target take consecutive places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from l2d.errors import DataError
from l2d.sources.reading import Codes, Reading, Windows, bare, note
from l2d.sources.tables import Table, fault
from l2d.sources.times import NO_INSTANT, SECOND


class Layout:
    """Collects windows file by file; sizes, order and ids stay as given.

    Args:
        items: the ids that may occur, in row order.
        path: where they come from, for messages.
    """

    def __init__(self, items: Sequence[str] | dict[str, str], path: Path) -> None:
        self.users, self.items, self.path = Codes(), Codes(items), path
        self.known = len(self.items)
        self.user: list[int] = []
        self.item: list[int] = []
        self.instant: list[int] = []
        self.start: list[int] = []
        self.end: list[int] = []
        self.sizes: list[int] = []
        self.notes = [note("read", "items", self.known, path.name)] if self.known else []

    def require(self, table: Table, columns: Sequence[str]) -> None:
        """Refuses a table without these columns.

        Raises:
            DataError: one is missing.
        """
        for name in columns:
            if name not in table.columns:
                raise DataError(
                    f"there is no column {name!r}",
                    got=f"columns {', '.join(map(repr, table.columns))}",
                    expected=", ".join(columns),
                    cure="check the header, or give another --format",
                    file=table.path,
                    line=1,
                )

    def add(
        self,
        table: Table,
        *,
        users: pl.Series,
        histories: Sequence[Sequence[str]],
        targets: Sequence[str | None],
        times: Sequence[str | None] | None = None,
        history_times: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Adds one split's examples, the next of train, valid, test.

        Args:
            table: where they come from, for messages.
            users: ids. Shape: (records,).
            histories: ids per record, oldest first.
            targets: ids.
            times: unix seconds of the targets, or None where unknown.
            history_times: unix seconds per history, or None where unknown.

        Raises:
            DataError: a missing user or target, an unknown id, a bad time, or no example at all.
        """
        numbers = self.users.of(users, table)
        before, empty = len(self.end), 0
        for record, (user, history, target) in enumerate(zip(numbers.tolist(), histories, targets, strict=True)):
            if user < 0 and not history and not target:
                continue  # a blank line
            if user < 0 or not target:
                missing = "user" if user < 0 else "target"
                raise fault(
                    table, record, f"an example has no {missing}", got="an empty cell", expected="an id", cure="fix it"
                )
            if not history:
                empty += 1
                continue
            places = [self._item(table, record, text) for text in (*history, target)]
            instants = self._instants(table, record, len(history), times, history_times)
            self.start.append(len(self.item))
            self.end.append(len(self.item) + len(history))
            self.item += places
            self.instant += instants
            self.user += [user] * len(places)
        self.sizes.append(len(self.end) - before)
        if self.sizes[-1] == 0:
            raise DataError("the file has no examples", expected="at least one", cure="check the file", file=table.path)
        self.notes.append(note("read", "examples", self.sizes[-1] + empty, table.path.name))
        if empty:
            self.notes.append(note("dropped", "examples", empty, f"no history ({table.path.name})"))

    def _item(self, table: Table, record: int, text: str) -> int:
        known = len(self.items)
        number = self.items.number(text)
        if number < 0 or (self.known and number >= known):
            what, expected = "an example names an unknown item", f"an id of {self.path.name}"
            raise fault(
                table, record, what, got=repr(text), expected=expected, cure="add the item or remove the example"
            )
        return number

    def _instants(
        self,
        table: Table,
        record: int,
        length: int,
        times: Sequence[str | None] | None,
        history_times: Sequence[Sequence[str]] | None,
    ) -> list[int]:
        texts = list(history_times[record]) if history_times else [None] * length
        if len(texts) != length:
            what = "a history and its times differ in length"
            raise fault(table, record, what, got=len(texts), expected=f"{length} times", cure="give each item its time")
        target = times[record] if times else None
        return [NO_INSTANT if text is None else seconds(table, record, text) * SECOND for text in (*texts, target)]

    def reading(self, *, timed: bool) -> Reading:
        """All that was added."""
        train, valid, test = self.sizes
        windows = Windows(np.array(self.start, np.int64), np.array(self.end, np.int64), (train, valid, test))
        arrays = np.array(self.user, np.int32), np.array(self.item, np.int32), np.array(self.instant, np.int64)
        return Reading(
            self.users.ids, self.items.ids, *arrays, titles={}, timed=timed, windows=windows, notes=self.notes
        )


def seconds(table: Table, record: int, text: str) -> int:
    """One cell of unix seconds.

    Raises:
        DataError: it is no whole number, or negative.
    """
    try:
        value = int(bare(text))
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 40:
        cure = "fix the record"
        raise fault(
            table, record, "a time is unreadable or negative", got=repr(text), expected="unix seconds", cure=cure
        )
    return value
