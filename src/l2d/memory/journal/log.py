"""Live interactions as the journal keeps them: rows, and their checksums."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import DataError
from l2d.memory.columns import Batch, entry_table

COLUMNS = "seq, user_id, item_id, timestamp, entry, crc"
"""Of the journal's table of interactions."""


@dataclass(frozen=True)
class Log:
    """Live interactions in the order in which they came.

    Args:
        seq: their numbers, increasing. Shape: (interactions,), int64.
        user_ids: one per interaction.
        item_ids: one per interaction.
        timestamp: unix seconds. Shape: (interactions,), int64.
        entry: whether an interaction makes an entry of the memory: its user had a history. Shape: (interactions,).
    """

    seq: NDArray[np.int64]
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    timestamp: NDArray[np.int64]
    entry: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.seq)

    def take(self, places: NDArray[np.integer[Any]]) -> Log:
        """The interactions at the given increasing places."""
        users, items = ([column[place] for place in places.tolist()] for column in (self.user_ids, self.item_ids))
        return Log(self.seq[places], tuple(users), tuple(items), self.timestamp[places], self.entry[places])


NOTHING = Log(np.empty(0, np.int64), (), (), np.empty(0, np.int64), np.empty(0, np.bool_))


ERASE = {"erase": True}
"""A wish without content: what was deleted from the journal has to leave its file, too."""


@dataclass(frozen=True)
class Wish:
    """Something that was begun and has to be finished, by whoever writes next.

    Args:
        number: what to say when it is done.
        content: JSON values of its author's.
    """

    number: int
    content: dict[str, Any]


def text(value: str) -> str:
    """An id, if it can be stored.

    Raises:
        DataError: it is not text, or none that UTF-8 knows.
    """
    if not isinstance(value, str):
        raise DataError("an id is not text", got=repr(value))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError("an id is not text that can be stored", got=repr(value)) from error
    return value


def row_crc(*fields: str | int) -> int:
    """crc32 of a row's fields and of their types."""
    return zlib.crc32(ascii(fields).encode())


def rows(log: Log) -> Iterator[tuple[Any, ...]]:
    """Rows of the table."""
    columns = (log.seq.tolist(), log.user_ids, log.item_ids, log.timestamp.tolist(), map(int, log.entry.tolist()))
    for row in zip(*columns, strict=True):
        yield (*row, row_crc(*row))


def entry_digests(batch: Batch) -> NDArray[np.uint32]:
    """The same as in the memory."""
    table = entry_table(batch.thoughts, batch.item_ids, batch.user_ids, batch.timestamps, batch.samples)
    return table["crc"].to_numpy()
