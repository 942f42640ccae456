"""What a memory holds, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from l2d.memory.ledger import DType


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
