"""The memory of record: a Lance dataset in which each append is a versioned commit, guarded by its ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.errors import (
    ArtifactBusy,
    ArtifactExists,
    ArtifactMissing,
    ConfigError,
)
from l2d.memory.columns import IDENTITY, Batch, entry_table, narrow
from l2d.memory.entries import Entries
from l2d.memory.guard import lance_errors, steady
from l2d.memory.info import Counts, MemoryInfo, distinct, ends, size
from l2d.memory.ledger import DType, Ledger, Version, unclaimed
from l2d.memory.reading import dataset, read_entries, read_identity, read_thoughts
from l2d.memory.versions import compacted, returned, without

if TYPE_CHECKING:
    import pyarrow as pa

ATTEMPTS = 5
"""How often a memory is opened anew that a writer changes meanwhile."""


class Memory:
    """A memory on disk. Make one with `Memory.create` or `Memory.open`."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self.ledger = ledger
        self._counts: tuple[int, Counts] | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        width: int,
        dtype: DType = "float16",
        metadata: Mapping[str, Any] | None = None,
        plan: str = "",
    ) -> Memory:
        """Starts an empty memory.

        Raises:
            ConfigError: an impossible width or dtype.
            ArtifactExists: something is there already.
        """
        if width < 1 or dtype not in ("float16", "float32"):
            raise ConfigError(
                "impossible memory", got=f"width {width}, {dtype}", expected="width >= 1, float16 or float32"
            )
        if not unclaimed(path):
            raise ArtifactExists(f"{path} already exists", cure="pass --overwrite, or choose another --out")
        ledger = Ledger(width, dtype, dict(metadata or {}), plan)
        ledger.save(path)
        return cls(path, ledger)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        expected: Mapping[str, Any] | None = None,
        unfinished: bool = False,
        known: Mapping[str, str] | None = None,
    ) -> Memory:
        """Opens a memory after comparing every file with its checksum.

        Args:
            path: the memory's folder.
            expected: metadata that must be the memory's, such as fingerprints.
            unfinished: whether a memory whose build has not come to its end will do.
            known: checksums of files that were compared before and are not again.

        Raises:
            ArtifactMissing: no memory, an unfinished one, or one of its files is gone.
            ArtifactCorrupt: a file's bytes changed.
            ArtifactMismatch: the metadata differ; names both sides.
            ArtifactBusy: a writer changes it faster than it can be opened.
        """
        for attempt in range(ATTEMPTS):
            ledger = Ledger.load(path)
            ledger.require(path, dict(expected or {}))
            try:
                with steady(path, ledger):
                    ledger.verify(path, known)
                break
            except ArtifactBusy:
                if attempt == ATTEMPTS - 1:
                    raise
        if not (ledger.finished or unfinished):
            raise ArtifactMissing(
                f"the memory in {path} is not finished",
                got=f"{ledger.entries} entries",
                cure="run `l2d memory build RUN` again: it resumes",
            )
        return cls(path, ledger)

    @property
    def metadata(self) -> dict[str, Any]:
        """Fingerprints of what the memory was made with, and `through`."""
        return self.ledger.metadata

    def __len__(self) -> int:
        return self.ledger.entries

    def append(
        self,
        thoughts: NDArray[np.float32],
        item_ids: Sequence[str],
        user_ids: Sequence[str],
        timestamps: NDArray[np.int64],
        samples: NDArray[np.int64],
        *,
        moved: int | None = None,
    ) -> None:
        """Adds entries in one commit: afterwards all of them are there, or none.

        Args:
            thoughts: hidden states of the prompts. Shape: (entries, width).
            item_ids: the item that came next, by its id. One per entry.
            user_ids: whose history it was. One per entry.
            timestamps: time of the interaction, unix seconds. Shape: (entries,).
            samples: the sample that an entry is made of, each at most once in a memory. Shape: (entries,).
            moved: the last live interaction that a finished memory has taken in with them; None for the former one.

        Raises:
            ConfigError: columns of different length, or another width.
            DataError: a thought that is not finite in the memory's dtype.
            OutOfSpace: the disk is full; the memory is as it was.
        """
        sizes = {len(thoughts), len(item_ids), len(user_ids), len(timestamps), len(samples)}
        if len(sizes) != 1 or thoughts.shape[1:] != (self.ledger.width,):
            raise ConfigError(
                "memory columns do not fit",
                got=f"{sorted(sizes)} rows, thoughts {thoughts.shape}",
                expected=f"one length, width {self.ledger.width}",
            )
        stored = narrow(thoughts, self.ledger.dtype, samples)
        table = entry_table(stored, item_ids, user_ids, timestamps, samples)
        self._roll_back()
        try:
            with lance_errors(self.path, writing=True):
                version = self._commit(table)
            ledger = self.ledger.with_new_files(self.path, version=version, entries=self.ledger.entries + len(samples))
            if self.ledger.finished:
                moved = self.ledger.moved if moved is None else moved
                ledger = replace(ledger, moved=moved).dated("move", self.ledger.versions)
            ledger.save(self.path)
        except BaseException:
            self._roll_back()
            raise
        self.ledger = ledger

    def finish(self) -> None:
        """Marks the memory as complete: from now on `open` accepts it."""
        self.ledger = replace(self.ledger, finished=True).dated("build", ())
        self.ledger.save(self.path)

    @property
    def versions(self) -> tuple[Version, ...]:
        """The states that can be returned to, oldest first; the last one is the present one."""
        return self.ledger.versions

    def remove(self, samples: NDArray[np.int64], instead: Batch | None = None, *, moved: int | None = None) -> int:
        """Removes entries for good: no file of the memory holds them afterwards, and no earlier version is left.

        Args:
            samples: theirs; those that are not there are passed over.
            instead: entries that take the place of some of them, in the same step.
            moved: as in `append`.

        Returns:
            How many fewer there are.

        Raises:
            ConfigError: `instead` has other samples.
            DataError: a thought that is not finite in the memory's dtype.
            OutOfSpace: the disk is full; the memory is as it was.
        """
        before, table = len(self), None
        if instead is not None and len(instead):
            if not np.isin(instead.samples, np.intersect1d(samples, self.samples())).all():
                raise ConfigError("an entry takes the place of none", expected="samples that are there and removed")
            stored = narrow(instead.thoughts, self.ledger.dtype, instead.samples)
            table = entry_table(stored, instead.item_ids, instead.user_ids, instead.timestamps, instead.samples)
        self._change(lambda ledger: without(self.path, ledger, samples, table), moved)
        return before - len(self)

    def compact(self, *, keep: int = 1, moved: int | None = None) -> None:
        """Joins small files, and drops all versions but the newest.

        Args:
            keep: how many versions stay, the new one among them.
            moved: as in `append`.

        Raises:
            ConfigError: `keep` below 1.
            OutOfSpace: the disk is full; the memory is as it was.
        """
        self._change(lambda ledger: compacted(self.path, ledger, keep), moved)

    def roll_back(self, version: int, *, last: int = 0) -> None:
        """Goes back to an earlier version, which becomes a new one; what came between is gone.

        Args:
            version: one of `versions`.
            last: the last live interaction there is; those that the version does not have count as undone.

        Raises:
            ConfigError: no such version, or one from before a forget.
        """
        self._change(lambda ledger: returned(self.path, ledger, version, last))

    def recover(self) -> None:
        """For a writer: removes what a process left behind that died while it wrote."""
        self._roll_back()

    def _change(self, step: Callable[[Ledger], Ledger], moved: int | None = None) -> None:
        self._roll_back()
        try:
            ledger = step(self.ledger if moved is None else replace(self.ledger, moved=moved))
            ledger.save(self.path)
        except BaseException:
            self._roll_back()
            raise
        self.ledger = ledger
        ledger.drop_unlisted(self.path)

    def samples(self) -> NDArray[np.int64]:
        """The samples that the memory holds, in the order they were written. Shape: (entries,)."""
        return self._identity("sample")["sample"].to_numpy()

    def entries(self, catalog: Catalog, more: Batch | None = None) -> Entries:
        """Everything, in sample order, each entry compared with its crc.

        Args:
            catalog: what the item ids are rows of.
            more: entries that come after all of these, such as those that wait in a journal.

        Raises:
            ArtifactCorrupt: an entry does not match its crc, or stands twice.
            ArtifactMismatch: an item that the catalogue does not have.
            ArtifactBusy: a writer removed this state of the memory; opening it again helps.
        """
        with steady(self.path, self.ledger):
            return read_entries(self.path, self.ledger, catalog, more)

    def verify(self) -> None:
        """Compares every file with its checksum and every entry with its crc.

        Raises:
            ArtifactMissing, ArtifactCorrupt: what is wrong.
        """
        with steady(self.path, self.ledger):
            self.ledger.verify(self.path)
            read_thoughts(self.path, self.ledger, read_identity(self.path, self.ledger, IDENTITY))

    def info(self, more: Batch | None = None) -> MemoryInfo:
        """Counts and sizes; the first time in a version, reads all columns but the thoughts.

        Args:
            more: entries to be counted in, such as those that wait in a journal.
        """
        ledger = self.ledger
        if self._counts is None or self._counts[0] != ledger.version:
            self._counts = (ledger.version, Counts.of(self._identity("item_id", "user_id", "timestamp")))
        counts, more = self._counts[1], Batch.empty(ledger.width, ledger.dtype) if more is None else more
        times = (*counts.times, *ends(more.timestamps))
        return MemoryInfo(
            entries=ledger.entries + len(more),
            items=distinct(counts.items, more.item_ids),
            users=distinct(counts.users, more.user_ids),
            width=ledger.width,
            dtype=ledger.dtype,
            bytes=size(self.path.rglob("*")),
            versions=ledger.version,
            through=ledger.metadata.get("through"),
            first=min(times, default=None),
            last=max(times, default=None),
            finished=ledger.finished,
            metadata=ledger.metadata,
        )

    def _roll_back(self) -> None:
        """Back to what the ledger on disk says: an interrupt may have fallen before or after it was replaced."""
        self.ledger = Ledger.load(self.path)
        self.ledger.drop_unlisted(self.path)

    def _commit(self, table: pa.Table) -> int:
        import lance

        if self.ledger.version == 0:
            return int(lance.write_dataset(table, str(self.path), mode="create").version)
        return int(lance.write_dataset(table, dataset(self.path, self.ledger.version), mode="append").version)

    def _identity(self, *columns: str) -> pa.Table:
        with steady(self.path, self.ledger):
            return read_identity(self.path, self.ledger, list(columns))
