"""The memory in working form: (thought, item, user, time) in sample order, and the item vectors made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError
from l2d.memory.nearest import Indexed, Points, pays

BLOCK = 1 << 13
"""Entries, and items, held in double precision at once: 64 MiB each at width 1,024."""


@dataclass(frozen=True)
class Entries:
    """Memory entries in the order of their samples.

    Args:
        thoughts: as stored, float16 or float32. Shape: (entries, width).
        row: catalogue row of the item that came next. Shape: (entries,), int32.
        user: index into `user_ids`. Shape: (entries,), int32.
        timestamp: time of that interaction, unix seconds. Shape: (entries,), int64.
        sample: which training sample an entry is, strictly increasing. Shape: (entries,), int64.
        user_ids: the users' ids.

    Raises:
        ConfigError: lengths, order or types that do not fit together.
    """

    thoughts: NDArray[Any]
    row: NDArray[np.int32]
    user: NDArray[np.int32]
    timestamp: NDArray[np.int64]
    sample: NDArray[np.int64]
    user_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.thoughts.ndim != 2 or self.thoughts.dtype not in (np.float16, np.float32):
            raise ConfigError(
                "thoughts must be a matrix of float16 or float32", got=f"{self.thoughts.dtype} {self.thoughts.shape}"
            )
        lengths = {len(column) for column in (self.thoughts, self.row, self.user, self.timestamp, self.sample)}
        if len(lengths) != 1:
            raise ConfigError("memory columns differ in length", got=sorted(lengths))
        if (np.diff(self.sample) <= 0).any():
            raise ConfigError("entries must stand in sample order, each sample once")

    def __len__(self) -> int:
        return len(self.row)

    @property
    def width(self) -> int:
        """Length of a thought."""
        return int(self.thoughts.shape[1])

    @cached_property
    def points(self) -> Points:
        """The thoughts, ready to be searched; made once and shared by all decoders of this memory."""
        return Points(self.thoughts)

    @cached_property
    def indexed(self) -> Points:
        """The same by an approximate index, where that pays; its `recall` says what it finds."""
        return Indexed(self.thoughts) if pays(len(self)) else self.points

    def places(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The entries of some items, in the order of these. Shape: (entries,)."""
        order, starts = self._by_row
        rows = rows[(rows >= 0) & (rows < len(starts) - 1)]
        counts = starts[rows + 1] - starts[rows]
        ends = np.cumsum(counts)
        return order[np.arange(counts.sum()) + np.repeat(starts[rows] - (ends - counts), counts)].astype(np.int64)

    @cached_property
    def _by_row(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Places in order of their items, and where each item's begin."""
        counts = np.bincount(self.row)
        return np.argsort(self.row, kind="stable").astype(np.int32), np.concatenate([[0], np.cumsum(counts)])

    def take(self, indices: NDArray[np.integer[Any]]) -> Entries:
        """The entries at the given increasing places; itself, where these are all of them."""
        if len(indices) == len(self):
            return self
        row, user, timestamp, sample = (
            column[indices] for column in (self.row, self.user, self.timestamp, self.sample)
        )
        return Entries(self.thoughts[indices], row, user, timestamp, sample, self.user_ids)


@dataclass(frozen=True)
class ItemVectors:
    """One vector per catalogue row: the mean of the thoughts that the item followed.

    Args:
        vectors: zeros for items without entries, which are unknown and never candidates. Shape: (items, width).
        counts: memory entries of each item. Shape: (items,), int64.

    Raises:
        ConfigError: shapes or types that do not fit together.
    """

    vectors: NDArray[np.float32]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise ConfigError("item vectors must be a float32 matrix", got=f"{self.vectors.dtype} {self.vectors.shape}")
        if self.counts.shape != self.vectors.shape[:1]:
            raise ConfigError("one count per item vector", got=self.counts.shape, expected=self.vectors.shape[:1])

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def points(self) -> Points:
        """The vectors, ready to be searched, centred by the mean of the known ones."""
        return Points(self.vectors, self.counts > 0)


def run_sums(thoughts: NDArray[Any], starts: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Sums of consecutive runs of thoughts, in double precision and in their order.

    A loop over runs, or over places within runs, whichever is the shorter one: `np.add.reduceat` is slow along the
    first axis.

    Args:
        thoughts: shape (n, width).
        starts: where each run begins, from 0 on; the last one ends at n. Shape: (runs,).

    Returns:
        Shape: (runs, width).
    """
    lines = thoughts.astype(np.float64)
    sizes = np.diff(starts, append=len(lines))
    if not len(starts) or sizes.max() >= len(starts):
        sums = np.empty((len(starts), thoughts.shape[1]))
        for total, start, size in zip(sums, starts.tolist(), sizes.tolist(), strict=True):
            np.add.reduce(lines[start : start + size], axis=0, out=total)
        return sums
    sums = lines[starts]
    for place in range(1, int(sizes.max())):
        longer = np.flatnonzero(sizes > place)
        sums[longer] += lines[starts[longer] + place]
    return sums


def item_sums(entries: Entries, items: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum of the stored thoughts of each item, and their number.

    Over float16 values the sums are exact, hence the same in any order and after any adds and removals: such a value
    is a multiple of 2^-24, and a double holds 53 bits, so this is true while entries of one item x their greatest
    absolute value stay within 2^29 (8 million entries at 64, 8 thousand at the largest float16).

    Returns:
        sums, shape (items, width), and counts, shape (items,).
    """
    counts = _counts(entries, items)
    sums = np.empty((items, entries.width))
    for rows in _slabs(items):
        sums[rows] = _sums(entries, rows)
    return sums, counts


def _counts(entries: Entries, items: int) -> NDArray[np.int64]:
    if len(entries) and not 0 <= int(entries.row.min()) <= int(entries.row.max()) < items:
        raise ConfigError(
            "an entry's item is not in the catalogue", got=int(entries.row.max()), expected=f"rows below {items}"
        )
    return np.bincount(entries.row, minlength=items).astype(np.int64)


def _slabs(items: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, items)) for start in range(0, items, BLOCK))


def _sums(entries: Entries, rows: slice) -> NDArray[np.float64]:
    """Sums of some consecutive items, a block of their entries at a time."""
    places = entries.places(np.arange(rows.start, rows.stop))
    sums = np.zeros((rows.stop - rows.start, entries.width))
    for start in range(0, len(places), BLOCK):
        block = places[start : start + BLOCK]
        found, starts = np.unique(entries.row[block], return_index=True)
        sums[found - rows.start] += run_sums(entries.thoughts[block], starts)
    return sums


def aggregate(entries: Entries, items: int) -> ItemVectors:
    """Plain means of each item's thoughts: the vectors of L2D-G (arXiv 2509.11524, section 3).

    Args:
        entries: the memory.
        items: catalogue size.

    Raises:
        ConfigError: an entry's row lies outside the catalogue.
    """
    counts = _counts(entries, items)
    vectors = np.empty((items, entries.width), dtype=np.float32)
    for rows in _slabs(items):
        vectors[rows] = _sums(entries, rows) / np.maximum(counts[rows], 1)[:, None]
    return ItemVectors(vectors, counts)
