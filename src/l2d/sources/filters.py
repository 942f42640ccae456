"""Which interactions stay: order, duplicates, k-core. Pure functions on integer arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Log:
    """Interactions as codes, one place each.

    Args:
        user: user codes. Shape: (interactions,), int32.
        item: item codes. Shape: (interactions,), int32.
        instant: microseconds since 1970, or `NO_INSTANT`. Shape: (interactions,), int64.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    instant: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, places: NDArray[Any]) -> Log:
        """The interactions at some places, or where a mask is true."""
        return Log(self.user[places], self.item[places], self.instant[places])


def in_order(log: Log) -> tuple[Log, int]:
    """Each user's interactions together, oldest first; the source's order decides between equal times.

    Returns:
        The sorted log, and how many interactions were older than the one before them of the same user.
    """
    by_user = log.take(np.argsort(log.user, kind="stable"))
    backwards = (by_user.user[1:] == by_user.user[:-1]) & (by_user.instant[1:] < by_user.instant[:-1])
    unsorted = int(np.count_nonzero(backwards))
    del backwards
    if unsorted:
        by_user = by_user.take(np.lexsort((by_user.instant, by_user.user)))
    return by_user, unsorted


def first_of_each(log: Log) -> NDArray[np.bool_]:
    """Marks all but repeats: same user, item and instant as an earlier place of a sorted log. Shape: (places,)."""
    same = (log.user[1:] == log.user[:-1]) & (log.instant[1:] == log.instant[:-1])
    keep = np.ones(len(log), dtype=np.bool_)
    tied = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    if len(tied):
        order = tied[np.lexsort((log.item[tied], log.instant[tied], log.user[tied]))]
        before, after = log.take(order[:-1]), log.take(order[1:])
        equal = (before.user == after.user) & (before.item == after.item) & (before.instant == after.instant)
        keep[order[1:][equal]] = False
    return keep


def k_core(log: Log, k: int) -> tuple[NDArray[np.bool_], int]:
    """Marks the largest part of a log in which every user and every item has at least `k` interactions.

    Users and items below `k` go by turns until none is left below: one round is not enough, since each removal may
    bring others below.

    Returns:
        The mask, shape (interactions,), and the number of rounds.
    """
    keep = np.ones(len(log), dtype=np.bool_)
    for rounds in range(len(log) + 1):
        users, items = np.bincount(log.user[keep]), np.bincount(log.item[keep])
        low_user, low_item = np.flatnonzero(users < k), np.flatnonzero(items < k)
        after = keep & ~_member(log.user, low_user, len(users)) & ~_member(log.item, low_item, len(items))
        if np.array_equal(after, keep):
            return keep, rounds
        keep = after
    return keep, len(log)


def _member(codes: NDArray[np.int32], chosen: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    table = np.zeros(max(size, int(codes.max(initial=-1)) + 1), dtype=np.bool_)
    table[chosen] = True
    return table[codes]


def compact(codes: NDArray[np.int32], keep: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Codes renumbered after dropping those that `keep` marks false, in the same order. Shape: (interactions,)."""
    return (np.cumsum(keep) - 1).astype(np.int32)[codes]
