"""The memory of record: a Lance dataset in which each append is a versioned commit, guarded by its ledger."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.errors import (
    ArtifactCorrupt,
    ArtifactExists,
    ArtifactMismatch,
    ArtifactMissing,
    ConfigError,
    InputError,
    L2DError,
    OutOfSpace,
)
from l2d.interactions import UNKNOWN_TIME
from l2d.memory.columns import IDENTITY, entry_crcs, entry_table, identity_bytes, narrow, schema
from l2d.memory.entries import Entries
from l2d.memory.ledger import REBUILD, DType, Ledger, unclaimed

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

BATCH = 1 << 13
"""Entries read at once."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a file cannot grow."""


@dataclass(frozen=True)
class MemoryInfo:
    """What a memory holds.

    Args:
        entries: number of entries.
        items: items with at least one entry.
        users: users with at least one entry.
        width: length of a thought.
        dtype: type of the stored thoughts.
        bytes: size on disk of all versions, the ledger included.
        versions: Lance commits.
        through: the last split whose targets it holds, None where nobody said.
        first, last: earliest and latest known time, unix seconds; None where no entry has one.
        finished: whether its build has come to its end.
        metadata: fingerprints of what it was made with.
    """

    entries: int
    items: int
    users: int
    width: int
    dtype: DType
    bytes: int
    versions: int
    through: str | None
    first: int | None
    last: int | None
    finished: bool
    metadata: dict[str, Any]


class Memory:
    """A memory on disk. Make one with `Memory.create` or `Memory.open`."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self.ledger = ledger

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
    def open(cls, path: Path, *, expected: Mapping[str, Any] | None = None, unfinished: bool = False) -> Memory:
        """Opens a memory after comparing every file with its checksum.

        Args:
            path: the memory's folder.
            expected: metadata that must be the memory's, such as fingerprints.
            unfinished: whether a memory whose build has not come to its end will do.

        Raises:
            ArtifactMissing: no memory, an unfinished one, or one of its files is gone.
            ArtifactCorrupt: a file's bytes changed.
            ArtifactMismatch: the metadata differ; names both sides.
        """
        ledger = Ledger.load(path)
        ledger.require(path, dict(expected or {}))
        ledger.verify(path)
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
    ) -> None:
        """Adds entries in one commit: afterwards all of them are there, or none.

        Args:
            thoughts: hidden states of the prompts. Shape: (entries, width).
            item_ids: the item that came next, by its id. One per entry.
            user_ids: whose history it was. One per entry.
            timestamps: time of the interaction, unix seconds. Shape: (entries,).
            samples: the sample that an entry is made of, each at most once in a memory. Shape: (entries,).

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
            with _lance_errors(self.path, writing=True):
                version = self._commit(table)
            ledger = self.ledger.with_new_files(self.path, version=version, entries=self.ledger.entries + len(samples))
            ledger.save(self.path)
        except BaseException:
            self._roll_back()
            raise
        self.ledger = ledger

    def finish(self) -> None:
        """Marks the memory as complete: from now on `open` accepts it."""
        self.ledger = replace(self.ledger, finished=True)
        self.ledger.save(self.path)

    def samples(self) -> NDArray[np.int64]:
        """The samples that the memory holds, in the order they were written. Shape: (entries,)."""
        return self._identity(["sample"])["sample"].to_numpy()

    def entries(self, catalog: Catalog) -> Entries:
        """Everything, in sample order, each entry compared with its crc.

        Args:
            catalog: what the item ids are rows of.

        Raises:
            ArtifactCorrupt: an entry does not match its crc, or stands twice.
            ArtifactMismatch: an item that the catalogue does not have.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self._identity(IDENTITY)
        sample = table["sample"].to_numpy()
        order = np.argsort(sample, kind="stable")
        if (np.diff(sample[order]) == 0).any():
            raise ArtifactCorrupt("a sample stands in the memory twice", file=self.path, cure=REBUILD)
        thoughts = self._thoughts(table, sample, order)
        rows = pc.index_in(table["item_id"], value_set=pa.array(catalog.item_ids, pa.string()))
        if rows.null_count:
            stranger = table["item_id"].filter(pc.is_null(rows))[0].as_py()
            raise ArtifactMismatch(
                "the memory holds an item that the catalogue lacks",
                got=f"memory item {stranger!r}",
                expected=f"one of {len(catalog)} catalogue items",
                file=self.path,
                cure="use the catalogue it was made with",
            )
        users = sorted(pc.unique(table["user_id"]).to_pylist())
        user = pc.index_in(table["user_id"], value_set=pa.array(users, pa.string()))
        row, owner = rows.to_numpy().astype(np.int32)[order], user.to_numpy().astype(np.int32)[order]
        return Entries(thoughts, row, owner, table["timestamp"].to_numpy()[order], sample[order], tuple(users))

    def verify(self) -> None:
        """Compares every file with its checksum and every entry with its crc.

        Raises:
            ArtifactMissing, ArtifactCorrupt: what is wrong.
        """
        self.ledger.verify(self.path)
        table = self._identity(IDENTITY)
        sample = table["sample"].to_numpy()
        self._thoughts(table, sample, np.arange(len(sample)))

    def info(self) -> MemoryInfo:
        """Counts and sizes; reads all columns but the thoughts."""
        import pyarrow.compute as pc

        table = self._identity(["item_id", "user_id", "timestamp"])
        times = table["timestamp"].to_numpy()
        times = times[times != UNKNOWN_TIME]
        ledger = self.ledger
        return MemoryInfo(
            entries=ledger.entries,
            items=pc.count_distinct(table["item_id"]).as_py(),
            users=pc.count_distinct(table["user_id"]).as_py(),
            width=ledger.width,
            dtype=ledger.dtype,
            bytes=sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
            versions=ledger.version,
            through=ledger.metadata.get("through"),
            first=int(times.min()) if len(times) else None,
            last=int(times.max()) if len(times) else None,
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
        return int(lance.write_dataset(table, self._dataset(), mode="append").version)

    def _dataset(self) -> lance.LanceDataset:
        import lance

        # By its number: Lance's own "latest" falls back to an older version when a manifest is gone.
        return lance.dataset(str(self.path), version=self.ledger.version)

    def _identity(self, columns: list[str]) -> pa.Table:
        """Some columns of all entries, in the order they were written."""
        if self.ledger.version == 0:
            return schema(self.ledger.width, self.ledger.dtype).empty_table().select(columns)
        with _lance_errors(self.path):
            table = self._dataset().to_table(columns=columns)
        if len(table) != self.ledger.entries or any(column.null_count for column in table.columns):
            raise ArtifactCorrupt(
                "the memory lost entries", got=len(table), expected=self.ledger.entries, file=self.path, cure=REBUILD
            )
        return table

    def _thoughts(self, identity: pa.Table, sample: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[Any]:
        """The thoughts, entry `order[i]` of the dataset at place i, read in batches and compared with the crcs."""
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        thoughts = np.empty((len(order), self.ledger.width), dtype=self.ledger.dtype)
        digests, crcs = identity_bytes(identity), identity["crc"].to_numpy()
        done = 0
        for batch in self._thought_batches():
            part = slice(done, done + len(batch))
            done += len(batch)
            wrong = np.flatnonzero(entry_crcs(batch, digests[part]) != crcs[part])
            if len(wrong):
                raise ArtifactCorrupt(
                    f"the entry of sample {sample[part][wrong[0]]} does not match its crc", file=self.path, cure=REBUILD
                )
            thoughts[place[part]] = batch
        if done != len(order):
            raise ArtifactCorrupt(
                "the memory lost thoughts", got=done, expected=len(order), file=self.path, cure=REBUILD
            )
        return thoughts

    def _thought_batches(self) -> Iterator[NDArray[Any]]:
        if self.ledger.version == 0:
            return
        with _lance_errors(self.path):
            for batch in self._dataset().to_batches(columns=["thought"], batch_size=BATCH):
                values = batch.column(0).flatten().to_numpy()
                yield values.reshape(-1, self.ledger.width)


@contextlib.contextmanager
def _lance_errors(path: Path, *, writing: bool = False) -> Iterator[None]:
    """Turns whatever Lance throws into one of our errors.

    Broken files make it raise OSError, ValueError, RuntimeError or a Rust panic, which is a BaseException.
    """
    try:
        yield
    except (L2DError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        code = re.search(r"os error (\d+)", str(error))
        if code and int(code[1]) in NO_ROOM:
            raise OutOfSpace(
                f"no space left while writing {path}",
                got=os.strerror(int(code[1])),
                cure="free some space or raise the limit, then run the same command again: it resumes",
            ) from error
        if writing:
            raise InputError(
                f"cannot write {path}", got=_first_line(error), cure="check the folder's permissions and disk"
            ) from error
        raise ArtifactCorrupt(f"{path} cannot be read", got=_first_line(error), cure=REBUILD) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
