"""The memory in working form: (thought, item, user, time) in sample order, and the item vectors made of it.

Both grow in place, so that whoever holds them sees new entries at the next request. Growing and answering belong in one
thread: neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError
from l2d.memory.growing import Room
from l2d.memory.nearest import Indexed, Points, pays
from l2d.memory.nearest.scan import check_size

BLOCK = 1 << 13
"""Entries, and items, held in double precision at once: 64 MiB each at width 1,024."""

COLUMNS = ("thoughts", "row", "user", "timestamp", "sample")

LATE = 1 << 10
"""Entries, beside a sixteenth of all, that may stand behind those sorted by item before all are sorted again."""

SUMS = 64 << 20
"""Bytes of sums of items that are kept between writes."""


@dataclass(eq=False)
class Entries:
    """Memory entries in the order of their samples.

    Args:
        thoughts: as stored, float16 or float32. Shape: (entries, width).
        row: catalogue row of the item that came next. Shape: (entries,), int32.
        user: index into `user_ids`. Shape: (entries,), int32.
        timestamp: time of that interaction, unix seconds. Shape: (entries,), int64.
        sample: which training sample an entry is, strictly increasing. Shape: (entries,), int64.
        user_ids: the users' ids; those of later entries come behind them.

    Raises:
        ConfigError: lengths, order or types that do not fit together.
    """

    thoughts: NDArray[Any]
    row: NDArray[np.int32]
    user: NDArray[np.int32]
    timestamp: NDArray[np.int64]
    sample: NDArray[np.int64]
    user_ids: Sequence[str]

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
        """The entries of some items, an item's together and ascending. Shape: (entries,)."""
        order, starts = self._by_row
        asked = rows[(rows >= 0) & (rows < len(starts) - 1)]
        counts = starts[asked + 1] - starts[asked]
        ends = np.cumsum(counts)
        found = order[np.arange(counts.sum()) + np.repeat(starts[asked] - (ends - counts), counts)].astype(np.int64)
        late = np.flatnonzero(np.isin(self.row[len(order) :], rows)) + len(order)
        if not len(late):
            return found
        both = np.concatenate([found, late])
        return both[np.argsort(self.row[both], kind="stable")]

    @cached_property
    def _by_row(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Places in order of their items, and where each item's begin; of the entries that were there then."""
        counts = np.bincount(self.row)
        return np.argsort(self.row, kind="stable").astype(np.int32), np.concatenate([[0], np.cumsum(counts)])

    def append(
        self,
        thoughts: NDArray[Any],
        row: NDArray[np.int32],
        users: Sequence[str],
        timestamp: NDArray[np.int64],
        sample: NDArray[np.int64],
    ) -> None:
        """Takes in later entries; what is searched by and looked up by is kept and grows with them.

        Args:
            thoughts: as stored. Shape: (n, width).
            row: catalogue row of the item that came next. Shape: (n,).
            users: whose entry each is, by the user's id. One per entry.
            timestamp: unix seconds. Shape: (n,).
            sample: strictly increasing, and above all that are there. Shape: (n,).

        Raises:
            ConfigError: lengths, order or types that do not fit.
            InputError: a thought that cannot be searched by, see `Points`.
        """
        more = Entries(thoughts, row, np.zeros(len(users), np.int32), timestamp, sample, ())
        check_size(thoughts)
        alike = more.thoughts.dtype == self.thoughts.dtype and more.width == self.width
        if not alike or (len(self) and len(more) and more.sample[0] <= self.sample[-1]):
            raise ConfigError(
                "entries do not fit behind the memory's",
                got=f"{more.thoughts.dtype}, width {more.width}, samples from {more.sample[:1]}",
                expected=f"{self.thoughts.dtype}, width {self.width}, samples above {self.sample[-1:]}",
            )
        more.user[:] = [self._user(user) for user in users]
        first = len(self)
        for name, room in self._rooms.items():
            setattr(self, name, room.add(getattr(more, name)))
        searched = {id(points): points for name, points in self.__dict__.items() if name in ("points", "indexed")}
        for points in searched.values():
            points.follow(self.thoughts, np.arange(first, len(self)))
        if "_by_row" in self.__dict__ and len(self) - len(self._by_row[0]) > LATE + len(self) // 16:
            del self._by_row

    def _user(self, user_id: str) -> int:
        """A user's index; one that is new comes behind the others."""
        known, names = self._users
        if user_id not in known:
            known[user_id] = len(names)
            names.append(user_id)
        return known[user_id]

    @cached_property
    def _users(self) -> tuple[dict[str, int], list[str]]:
        self.user_ids = names = list(self.user_ids)
        return {user: index for index, user in enumerate(names)}, names

    @cached_property
    def _rooms(self) -> dict[str, Room]:
        return {name: Room(getattr(self, name)) for name in COLUMNS}

    def reserve(self) -> None:
        """Makes room for entries to come now, and not at the first one."""
        for name, room in self._rooms.items():
            room.reserve(len(self) + 1)
            setattr(self, name, room.array)

    def first(self, count: int) -> Entries:
        """The entries that came first, without a copy; they stay as they are whatever is appended here."""
        row, user, timestamp = self.row[:count], self.user[:count], self.timestamp[:count]
        return Entries(self.thoughts[:count], row, user, timestamp, self.sample[:count], self.user_ids)

    def take(self, indices: NDArray[np.integer[Any]]) -> Entries:
        """The entries at the given increasing places; without a copy, where these are all of them."""
        if len(indices) == len(self):
            return self.first(len(self))
        row, user, timestamp, sample = (
            column[indices] for column in (self.row, self.user, self.timestamp, self.sample)
        )
        return Entries(self.thoughts[indices], row, user, timestamp, sample, self.user_ids)


@dataclass(eq=False)
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
    def known(self) -> NDArray[np.bool_]:
        """The items that have entries. Shape: (items,)."""
        return self.counts > 0

    @cached_property
    def points(self) -> Points:
        """The vectors, ready to be searched, centred by the mean of the known ones."""
        return Points(self.vectors, self.known)

    def follow(self, entries: Entries, first: int) -> NDArray[np.int64]:
        """Moves the vectors of the items that entries were appended for, in place.

        Over float16 thoughts the vectors are then those of `aggregate` bit by bit, see `item_sums`; over float32 they
        agree within rounding. The sum of an item is made of its entries once, and kept.

        Args:
            entries: the memory, of which all before `first` are in the vectors.
            first: place of the first one that is not.

        Returns:
            The rows of those items, ascending.
        """
        fresh = entries.row[first:]
        order = np.argsort(fresh, kind="stable")
        rows, starts, counts = np.unique(fresh[order].astype(np.int64), return_index=True, return_counts=True)
        if len(rows) and rows[-1] >= len(self):
            raise ConfigError(
                "an entry's item is not in the catalogue", got=int(rows[-1]), expected=f"rows below {len(self)}"
            )
        added = run_sums(entries.thoughts[first + order], starts)
        self.counts[rows] += counts
        self.known[rows] = True
        for row, more in zip(rows.tolist(), added, strict=True):
            self.vectors[row] = self._sum(entries, row, more) / self.counts[row]
        if "points" in self.__dict__:
            self.points.follow(self.vectors, rows, self.known)
        return rows

    def _sum(self, entries: Entries, row: int, more: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of an item's entries, of which `more` is that of the new ones."""
        if row in self._sums:
            self._sums[row] += more
        else:
            if len(self._sums) * more.nbytes >= SUMS:
                self._sums.clear()
            self._sums[row] = _sums(entries, slice(row, row + 1))[0]
        return self._sums[row]

    @cached_property
    def _sums(self) -> dict[int, NDArray[np.float64]]:
        return {}

    def extend(self, items: int) -> None:
        """Goes over to a catalogue that has more items behind those of this one; they are unknown."""
        more = items - len(self)
        self.known = np.concatenate([self.known, np.zeros(more, dtype=bool)])
        self.vectors = self._rooms[0].add(np.zeros((more, self.vectors.shape[1]), dtype=np.float32))
        self.counts = self._rooms[1].add(np.zeros(more, dtype=np.int64))
        if "points" in self.__dict__:
            self.points.follow(self.vectors, np.arange(items - more, items), self.known)

    @cached_property
    def _rooms(self) -> tuple[Room, Room]:
        return Room(self.vectors), Room(self.counts)


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
