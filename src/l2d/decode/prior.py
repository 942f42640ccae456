"""How probable an item is before a thought is read: a power of its recent entries, kept up as entries are added."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from l2d.memory import Entries, ItemVectors

DAY = 86_400

AHEAD = 32.0
"""Half-lives that a new entry may be younger than the reckoning's day before all is reckoned anew."""


def recent_counts(entries: Entries, items: int, half_life: float | None) -> NDArray[np.float64]:
    """Entries of each item, an entry counting half of one that is `half_life` days younger. Shape: (items,).

    Args:
        entries: the memory.
        items: catalogue size.
        half_life: in days, counted back from the newest entry; None counts all alike.
    """
    if half_life is None or not len(entries):
        return np.bincount(entries.row, minlength=items).astype(np.float64)
    days = (entries.timestamp.max() - entries.timestamp) / DAY
    return np.bincount(entries.row, 0.5 ** (days / half_life), items).astype(np.float64, copy=False)


class Prior:
    """The weight of every item, not normalised; 0 for items that are never answered with.

    Entries are weighed against one fixed day. A younger newest entry would change all weights by one factor, which no
    probability depends on, so that a new entry changes the weight of its own item, and what newcomers are given.

    Args:
        entries: the memory.
        items: its item vectors.
        half_life: days after which an entry counts half; None for never.
        power: of an item's recent entries.
        newcomer: entries that an item without any is given, as a multiple of the known items' mean.
    """

    def __init__(
        self, entries: Entries, items: ItemVectors, *, half_life: float | None, power: float, newcomer: float
    ) -> None:
        self._entries, self._items = entries, items
        self._half_life, self._power, self._newcomer = half_life, power, newcomer
        self._reckon()

    def _reckon(self) -> None:
        self._day = int(self._entries.timestamp.max()) if len(self._entries) else 0
        self._recent = recent_counts(self._entries, len(self._items), self._half_life)
        self._total, self._known = float(self._recent.sum()), int(self._items.known.sum())
        self._unknown = np.flatnonzero(~self._items.known) if self._newcomer else np.empty(0, np.int64)

    def weights(self, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64]:
        """Weights of some items, or of all. Shape: (rows,)."""
        known = self._items.known[rows]
        given = self._newcomer * self._total / max(1, self._known)
        # A very old entry's weight may round to zero; its item stays known.
        found = np.where(known, np.maximum(self._recent[rows], np.finfo(np.float64).tiny), given) ** self._power
        found[~known & (given == 0)] = 0.0
        return np.asarray(found)

    def follow(self, first: int) -> NDArray[np.int64] | slice:
        """Counts the entries from place `first` on; the rows whose weights changed."""
        row, time = self._entries.row[first:], self._entries.timestamp[first:]
        ages = (self._day - time) / (DAY * (self._half_life or 1.0))
        if self._half_life is not None and len(ages) and ages.min() < -AHEAD:
            self._reckon()
            return slice(None)
        fresh = np.ones(len(row)) if self._half_life is None else 0.5**ages
        np.add.at(self._recent, row, fresh)
        self._total += float(fresh.sum())
        rows = np.unique(row).astype(np.int64)
        if not self._newcomer:
            return rows
        self._known = int(self._items.known.sum())
        self._unknown = self._unknown[~self._items.known[self._unknown]]
        return np.concatenate([rows, self._unknown])
