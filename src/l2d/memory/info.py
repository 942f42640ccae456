"""What a memory holds, in figures."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.interactions import UNKNOWN_TIME
from l2d.memory.ledger import DType

if TYPE_CHECKING:
    import pyarrow as pa


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
        pending: entries among these that are in the journal, not yet in the memory.
        interactions: live interactions.
        last_write: when the last of them was written, unix seconds; None if there was none.
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
    pending: int = 0
    interactions: int = 0
    last_write: int | None = None


@dataclass(frozen=True)
class Counts:
    """What is counted in all entries of one version, which takes long.

    Args:
        items: ids of items with an entry, each once.
        users: likewise.
        times: the earliest and the latest known time, unix seconds; none where no entry has one.
    """

    items: pa.Array
    users: pa.Array
    times: tuple[int, ...]

    @classmethod
    def of(cls, table: pa.Table) -> Counts:
        """Counts the columns item_id, user_id and timestamp."""
        items, users = (table[name].unique() for name in ("item_id", "user_id"))
        return cls(items, users, ends(table["timestamp"].to_numpy()))


def ends(times: NDArray[np.int64]) -> tuple[int, ...]:
    """The earliest and the latest known time; none where none is known."""
    known = times[times != UNKNOWN_TIME]
    return (int(known.min()), int(known.max())) if len(known) else ()


def distinct(there: pa.Array, more: Iterable[str]) -> int:
    """How many different ids there are in both."""
    import pyarrow as pa
    import pyarrow.compute as pc

    others = pa.array(sorted(set(more)), there.type)
    return len(there) + len(others) - (pc.sum(pc.is_in(others, value_set=there)).as_py() or 0)


def size(files: Iterable[Path]) -> int:
    """Bytes of files; one that is removed meanwhile has none."""
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
