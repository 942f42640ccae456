"""What is asked of a journal, each row compared with its checksum."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ArtifactCorrupt, ConfigError
from l2d.memory.columns import Batch
from l2d.memory.journal.log import COLUMNS, NOTHING, Log, Wish, entry_digests, row_crc, text
from l2d.memory.journal.sqlite import RESTORE, sqlite_errors
from l2d.memory.ledger import DType


class JournalReader:
    """What can be asked of a journal; safe to use from several threads.

    Args:
        path: the file.
        connection: to it.
        meta: what stands in it about itself.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, meta: Mapping[str, Any]) -> None:
        self.path = path
        self.base = int(meta["base"])
        self.width = int(meta["width"])
        self._connection = connection
        self._lock = threading.RLock()
        self.undone = (0, 0)

    def close(self) -> None:
        """Closes the file; a second time nothing happens."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dtype(self) -> DType:
        """Type of the stored thoughts."""
        return self._get("dtype")

    @property
    def last(self) -> int:
        """The last number that was given out; it also rises when something is deleted. 0 before the first."""
        return self._number("SELECT seq FROM sqlite_sequence WHERE name = 'interactions'")

    @property
    def epoch(self) -> int:
        """How often something was deleted: while it stays, the log has only grown."""
        return int(self._get("epoch"))

    @property
    def rebuilt(self) -> int:
        """The last number at the time when the memory was built anew; 0 if it never was."""
        return int(self._get("rebuilt"))

    @property
    def written(self) -> int | None:
        """When interactions were written last, unix seconds."""
        return self._get("written")

    @property
    def changes(self) -> int:
        """A number that is another one once another connection has written; cheap."""
        return self._number("PRAGMA data_version")

    def __len__(self) -> int:
        first, last = self.undone
        return self._number("SELECT count(*) FROM interactions WHERE seq NOT BETWEEN ? AND ?", (first, last))

    def log(self) -> Log:
        """All interactions.

        Raises:
            ArtifactCorrupt: one does not match its checksum; names it.
        """
        return self.log_after(0)

    def log_after(self, seq: int) -> Log:
        """The interactions that came after a number; raises as `log`."""
        return self._select("seq > ?", (int(seq),))

    def find(self, *, user: str | None = None, item: str | None = None, before: int | None = None) -> Log:
        """The interactions of a user, with an item, or older than a time (unix seconds, not included)."""
        given = {"user_id = ?": user, "item_id = ?": item, "timestamp < ?": before}
        conditions = {condition: value for condition, value in given.items() if value is not None}
        if len(conditions) != 1:
            raise ConfigError(
                "say what to find", got=f"{len(conditions)} conditions", expected="one of user, item, before"
            )
        ((condition, value),) = conditions.items()
        return self._select(condition, (value if isinstance(value, int) else text(str(value)),))

    def known(
        self, user_ids: Sequence[str], item_ids: Sequence[str], timestamps: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether an interaction is there already, or stands earlier in the same call. Shape: (interactions,)."""
        found = np.zeros(len(user_ids), dtype=np.bool_)
        seen: set[tuple[str, str, int]] = set()
        query = "SELECT 1 FROM interactions WHERE user_id = ? AND item_id = ? AND timestamp = ?"
        with self.snapshot() as connection:
            for place, (user, item, stamp) in enumerate(zip(user_ids, item_ids, timestamps, strict=True)):
                one = (text(user), text(item), int(stamp))
                found[place] = one in seen or connection.execute(query, one).fetchone() is not None
                seen.add(one)
        return found

    def pending(self, moved: int = 0) -> Batch:
        """The entries that wait here, as the memory will hold them.

        Args:
            moved: entries up to this number are left out.

        Raises:
            ArtifactCorrupt: one does not match its checksum; names it.
        """
        first, last = self.undone
        with self.snapshot() as connection:
            dtype = np.dtype(self.dtype)
            columns = ", ".join(f"interactions.{name}" for name in COLUMNS.split(", "))
            rows = connection.execute(
                f"SELECT {columns}, thought, thoughts.crc FROM thoughts LEFT JOIN interactions USING (seq) "
                "WHERE seq > ? AND seq NOT BETWEEN ? AND ? ORDER BY seq",
                (moved, first, last),
            ).fetchall()
        log = self._log([row[:6] for row in rows])
        if any(not isinstance(row[6], bytes) or len(row[6]) != self.width * dtype.itemsize for row in rows):
            raise ArtifactCorrupt("a thought in the journal has another length", file=self.path, cure=RESTORE)
        thoughts = np.frombuffer(b"".join(row[6] for row in rows), dtype=dtype).reshape(len(rows), self.width)
        batch = Batch(thoughts, log.item_ids, log.user_ids, log.timestamp, self.base + log.seq)
        wrong = np.flatnonzero(entry_digests(batch) != np.array([row[7] for row in rows], dtype=np.uint32))
        if len(wrong):
            raise self._damaged(int(log.seq[wrong[0]]))
        return batch

    def missing(self, moved: int) -> Log:
        """The interactions whose entry is neither in the memory, which has taken in `moved`, nor waits here."""
        return self._select("entry AND seq > ? AND seq NOT IN (SELECT seq FROM thoughts)", (moved,))

    def waiting(self, moved: int = 0) -> int:
        """How many entries `pending` gives."""
        first, last = self.undone
        query = "SELECT count(*) FROM thoughts WHERE seq > ? AND seq NOT BETWEEN ? AND ?"
        return self._number(query, (moved, first, last))

    def wishes(self) -> list[Wish]:
        """What was begun and is not finished, oldest first."""
        with self._lock, sqlite_errors(self.path):
            rows = self._connection.execute("SELECT number, wish FROM wishes ORDER BY number").fetchall()
        try:
            return [Wish(number, json.loads(wish)) for number, wish in rows]
        except json.JSONDecodeError as error:
            raise ArtifactCorrupt("a wish in the journal is not readable", file=self.path, cure=RESTORE) from error

    # ---- inside

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """All or nothing, one thread at a time; on the disk when it ends."""
        with self._lock, sqlite_errors(self.path):
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def snapshot(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """While it is open, all questions are answered from one state, whoever writes meanwhile."""
        return self._transaction("BEGIN")

    def _number(self, query: str, values: tuple[int, ...] = ()) -> int:
        with self._lock, sqlite_errors(self.path):
            row = self._connection.execute(query, values).fetchone()
        if row is None or not isinstance(row[0], int):
            raise ArtifactCorrupt("the journal lost a number", file=self.path, cure=RESTORE)
        return row[0]

    def _get(self, name: str) -> Any:
        with self._lock, sqlite_errors(self.path):
            return read_meta(self._connection, self.path)[name]

    def _select(self, condition: str, values: tuple[Any, ...]) -> Log:
        first, last = self.undone
        query = f"SELECT {COLUMNS} FROM interactions WHERE {condition} AND seq NOT BETWEEN ? AND ? ORDER BY seq"
        with self._lock, sqlite_errors(self.path):
            return self._log(self._connection.execute(query, (*values, first, last)).fetchall())

    def _log(self, rows: list[tuple[Any, ...]]) -> Log:
        for row in rows:
            if row[0] is None or row[5] != row_crc(*row[:5]):
                raise self._damaged(row[0])
        if not rows:
            return NOTHING
        seq, users, items, times, entry, _ = zip(*rows, strict=True)
        return Log(np.array(seq, np.int64), users, items, np.array(times, np.int64), np.array(entry, np.bool_))

    def _damaged(self, seq: int | None) -> ArtifactCorrupt:
        what = f"interaction {seq} of the journal does not match its checksum"
        return ArtifactCorrupt(what, file=self.path, cure=RESTORE)


def read_meta(connection: sqlite3.Connection, path: Path) -> dict[str, Any]:
    """What a journal says about itself.

    Raises:
        ArtifactCorrupt: not all that it should.
    """
    try:
        found = {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM meta")}
    except json.JSONDecodeError as error:
        raise ArtifactCorrupt("the journal's description is not readable", file=path, cure=RESTORE) from error
    if not found.keys() >= {"format", "base", "identity", "width", "dtype", "moved", "epoch", "rebuilt", "written"}:
        raise ArtifactCorrupt("the journal does not say what it belongs to", file=path, cure=RESTORE)
    return found
