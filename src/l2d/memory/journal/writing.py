"""The journal: a SQLite file with a write-ahead log.

What a method wrote is on the disk when it returns, whole or not at all. Interactions are numbered 1, 2, ... in the
order in which they came; a number never comes again, whatever is deleted.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import atomic_file
from l2d.errors import ArtifactBusy, ArtifactMismatch, ConfigError, InternalError
from l2d.memory.columns import Batch, narrow
from l2d.memory.journal.log import COLUMNS, ERASE, Log, entry_digests, rows, text
from l2d.memory.journal.reading import JournalReader, read_meta
from l2d.memory.journal.sqlite import connected, settled, sqlite_errors
from l2d.memory.ledger import DType

FORMAT = 1

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE interactions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, item_id TEXT NOT NULL, timestamp INTEGER NOT NULL,
    entry INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE UNIQUE INDEX whole ON interactions (user_id, item_id, timestamp);
CREATE TABLE thoughts (seq INTEGER PRIMARY KEY, thought BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE wishes (number INTEGER PRIMARY KEY AUTOINCREMENT, wish TEXT NOT NULL);
INSERT INTO sqlite_sequence (name, seq) VALUES ('interactions', 0);
"""


class Journal(JournalReader):
    """A journal on disk. Make one with `Journal.create` or `Journal.open`; safe to use from several threads."""

    @classmethod
    def create(cls, path: Path, *, base: int, identity: Mapping[str, str], width: int, dtype: DType) -> Journal:
        """Makes an empty journal, whole or not at all, and opens it for writing.

        Args:
            path: the file; replaced if it is there.
            base: number of examples in the prepared data, or more; interaction `seq` makes sample `base + seq`.
            identity: fingerprints that it belongs to (backbone, prompts, catalog).
            width: length of a thought.
            dtype: type of the stored thoughts.

        Raises:
            OutOfSpace: the disk is full.
            InputError: the folder cannot be written.
        """
        meta = {
            "format": FORMAT, "base": int(base), "identity": dict(identity), "width": width, "dtype": dtype,
            "moved": 0, "epoch": 0, "rebuilt": 0, "written": None,
        }  # fmt: skip
        with sqlite_errors(path), atomic_file(path) as temporary:
            for left in path.parent.glob(f".{path.name}.*"):  # by a process that died here
                left.unlink()
            connection = sqlite3.connect(temporary, isolation_level=None)
            try:
                settled(connection)
                connection.executescript("BEGIN;" + SCHEMA)
                rows = [(name, json.dumps(value)) for name, value in meta.items()]
                connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
                connection.execute("COMMIT")
                connection.execute("PRAGMA journal_mode=DELETE")
            finally:
                connection.close()
        return cls.open(path, expected=identity, width=width, writer=True)

    @classmethod
    def open(
        cls, path: Path, *, expected: Mapping[str, str] | None = None, width: int | None = None, writer: bool = False
    ) -> Journal:
        """Opens a journal.

        Args:
            path: the file.
            expected: fingerprints that must be its own.
            width: length of a thought that must be its own.
            writer: whether it will be written to; there may be one writer and any number of readers.

        Raises:
            ArtifactMissing: no such file.
            ArtifactCorrupt: it is damaged.
            ArtifactMismatch: it belongs to another run.
        """
        connection = connected(path, writer=writer)
        try:
            with sqlite_errors(path):
                meta = read_meta(connection, path)
            wanted = {"format": FORMAT, **(expected or {}), **({} if width is None else {"width": width})}
            for name, value in wanted.items():
                there = meta[name] if name in meta else meta["identity"].get(name)
                if there != value:
                    raise ArtifactMismatch(
                        f"the journal {path} was made with another {name}", got=f"journal {there!r}",
                        expected=f"{value!r}", cure="use the run it belongs to",
                    )  # fmt: skip
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, meta)

    def append(
        self,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        timestamps: Sequence[int] | NDArray[np.int64],
        thoughts: NDArray[Any],
        entry: Sequence[bool] | NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Writes interactions and their thoughts in one transaction; they are on the disk when it returns.

        Args:
            user_ids: one per interaction.
            item_ids: one per interaction.
            timestamps: unix seconds. Shape: (interactions,).
            thoughts: of the interactions that make an entry, in their order. Shape: (entries, width).
            entry: which interactions these are. Shape: (interactions,).

        Returns:
            The numbers of the interactions. Shape: (interactions,).

        Raises:
            ConfigError: columns of different length, or another width.
            DataError: an id that is no text, or a thought that is not finite in the journal's dtype.
            InternalError: an interaction that is there already; see `known`.
            OutOfSpace: the disk is full; nothing was written.
        """
        users, items = tuple(map(text, user_ids)), tuple(map(text, item_ids))
        times, made = np.asarray(timestamps, dtype=np.int64), np.asarray(entry, dtype=np.bool_)
        sizes = {len(users), len(items), len(times), len(made)}
        if len(sizes) != 1 or thoughts.shape != (int(made.sum()), self.width):
            raise ConfigError(
                "journal columns do not fit", got=f"{sorted(sizes)} rows, thoughts {thoughts.shape}",
                expected=f"one length, thoughts ({int(made.sum())}, {self.width})",
            )  # fmt: skip
        with self._transaction() as connection:
            first = self.last + 1
            log = Log(np.arange(first, first + len(users)), users, items, times, made)
            blobs = self._blobs(log.take(np.flatnonzero(made)), thoughts)
            try:
                connection.executemany(f"INSERT INTO interactions ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", rows(log))
            except sqlite3.IntegrityError as error:
                raise InternalError("an interaction was to be written twice", cure="ask `known` first") from error
            connection.executemany("INSERT INTO thoughts VALUES (?, ?, ?)", blobs)
            self._set("written", int(time.time()))
        return log.seq

    def rethought(self, seqs: NDArray[np.int64], thoughts: NDArray[Any]) -> None:
        """Gives interactions that make an entry their thoughts (again).

        Args:
            seqs: their numbers, increasing.
            thoughts: theirs. Shape: (interactions, width).

        Raises:
            ConfigError: one of them is not there or makes no entry, or shapes that do not fit.
        """
        with self._transaction() as connection:
            log = self.log()
            log = log.take(np.flatnonzero(np.isin(log.seq, seqs) & log.entry))
            if not np.array_equal(log.seq, seqs) or thoughts.shape != (len(seqs), self.width):
                raise ConfigError("thoughts for interactions that make no entry", got=f"{len(seqs)} numbers")
            connection.executemany("INSERT OR REPLACE INTO thoughts VALUES (?, ?, ?)", self._blobs(log, thoughts))
            self._burn()

    def moved(self, seq: int) -> None:
        """Says that the memory has taken in everything up to a number: these thoughts are not needed here any more."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM thoughts WHERE seq <= ?", (int(seq),))
            self._set("moved", int(seq))

    def forget(self, seqs: Collection[int] | NDArray[np.int64]) -> int:
        """Deletes interactions and their thoughts; see `scrub` for the bytes.

        Returns:
            How many there were.
        """
        numbers = [(int(seq),) for seq in seqs]
        with self._transaction() as connection:
            connection.executemany("DELETE FROM thoughts WHERE seq = ?", numbers)
            gone = connection.executemany("DELETE FROM interactions WHERE seq = ?", numbers).rowcount
            if gone > 0:
                self._burn()
                self._set("epoch", self._get("epoch") + 1)
        return max(gone, 0)

    def without_entries(self, seqs: Collection[int] | NDArray[np.int64]) -> None:
        """Says that interactions make no entry any more; they stay in their users' histories."""
        numbers = np.unique(np.asarray(list(seqs), dtype=np.int64))
        with self._transaction() as connection:
            log = self.log()
            log = log.take(np.flatnonzero(np.isin(log.seq, numbers) & log.entry))
            if len(log):
                plain = Log(log.seq, log.user_ids, log.item_ids, log.timestamp, np.zeros(len(log), np.bool_))
                changes = [(row[-1], row[0]) for row in rows(plain)]
                connection.executemany("UPDATE interactions SET entry = 0, crc = ? WHERE seq = ?", changes)
                connection.executemany("DELETE FROM thoughts WHERE seq = ?", [(row[0],) for row in rows(plain)])
                self._burn()
                self._set("epoch", self._get("epoch") + 1)

    def truncate_after(self, seq: int, last: int | None = None) -> int:
        """Deletes the interactions that came after a number, up to `last` (default: all).

        Returns:
            How many there were.
        """
        with self._transaction() as connection:
            span = (int(seq), self.last if last is None else int(last))
            connection.execute("DELETE FROM thoughts WHERE seq > ? AND seq <= ?", span)
            gone = connection.execute("DELETE FROM interactions WHERE seq > ? AND seq <= ?", span).rowcount
            if gone:
                self._burn()
                self._set("epoch", self._get("epoch") + 1)
            if span[0] < self._get("moved") <= span[1]:
                self._set("moved", span[0])
        return int(gone)

    def scrub(self) -> None:
        """Writes the file anew, so that no byte of what was deleted stays in it or in its write-ahead log.

        Raises:
            ArtifactBusy: a reader held on to the old state; try again.
            OutOfSpace: no room for the copy; nothing was lost.
        """
        with self._lock, sqlite_errors(self.path):
            for step in ("wal_checkpoint(TRUNCATE)", None, "wal_checkpoint(TRUNCATE)"):
                if step is None:
                    self._connection.execute("VACUUM")
                elif self._connection.execute(f"PRAGMA {step}").fetchone()[0]:
                    raise ArtifactBusy(f"{self.path} is being read", cure="try again")

    def erase(self) -> None:
        """Fulfils every wish to erase; errors as for `scrub`, and then the wishes stay."""
        waiting = [wish.number for wish in self.wishes() if wish.content == ERASE]
        self.scrub()
        for number in waiting:
            self.fulfilled(number)

    def wish(self, content: Mapping[str, Any]) -> int:
        """Records something that must be finished even if this process dies; returns its number."""
        with self._transaction() as connection:
            return int(
                connection.execute("INSERT INTO wishes (wish) VALUES (?)", (json.dumps(content),)).lastrowid or 0
            )

    def fulfilled(self, number: int) -> None:
        """Deletes a wish; `scrub` deletes its bytes."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM wishes WHERE number = ?", (number,))

    def settle(self, moved: int, dtype: DType) -> None:
        """Brings the journal to what the memory's ledger says, after a crash or a rebuild.

        Args:
            moved: the last number that the memory has taken in.
            dtype: type of the memory's thoughts; thoughts of another type are dropped and have to be thought again.
        """
        first, last = self.undone
        if last:
            with self._transaction():
                if self.truncate_after(first - 1, last):
                    self.wish(ERASE)
            self.undone = (0, 0)
        if self._get("moved") > moved:  # the memory was built anew and lacks what it had taken in
            with self._transaction():
                self._set("rebuilt", self.last)
                self._set("moved", moved)
        elif self._get("moved") < moved or self._number("SELECT count(*) FROM thoughts WHERE seq <= ?", (moved,)):
            self.moved(moved)
        if self.dtype != dtype:
            with self._transaction() as connection:
                connection.execute("DELETE FROM thoughts")
                self._set("dtype", dtype)
                self._burn()

    def _set(self, name: str, value: Any) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE name = ?", (json.dumps(value), name))

    def _burn(self) -> None:
        """Uses up a number, so that every state of the journal has another last one."""
        self._connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'interactions'")

    def _blobs(self, log: Log, thoughts: NDArray[Any]) -> list[tuple[int, bytes, int]]:
        stored = narrow(thoughts, self.dtype, self.base + log.seq)
        crcs = entry_digests(Batch(stored, log.item_ids, log.user_ids, log.timestamp, self.base + log.seq))
        return [
            (seq, thought.tobytes(), crc)
            for seq, thought, crc in zip(log.seq.tolist(), stored, crcs.tolist(), strict=True)
        ]
