"""The token trie of the catalogue, kept as a sorted table: a node is a run of lines that begin with the same tokens.

Restricting the trie to some items is then picking lines, and the forced tokens below a node are what its first and
its last line share. No node objects, no dictionary: 100,000 titles of up to 20 tokens take 8 MB and a quarter of a
second to sort.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError, DataError
from l2d.ranking import Rows

PADDING = -1
"""Fills the table behind the end of an answer. Smaller than any token, so that a prefix sorts first."""

Leaves = NDArray[np.int64]


class Children(NamedTuple):
    """The continuations of one node: token i leads to the places `low[i]:high[i]` of the same leaves."""

    tokens: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


@dataclass(frozen=True)
class Trie:
    """All distinct answers, sorted. Build it with `Trie.build`.

    Rows whose answers are equal (the same title, or titles cut to the same tokens) share a leaf.

    Args:
        tokens: one answer per line, `PADDING` behind its end. Shape: (leaves, longest), int32, column-major.
        lengths: tokens of each answer. Shape: (leaves,).
        leaf: the leaf of each catalogue row. Shape: (items,).
        rows: catalogue rows by leaf, ascending within a leaf. Shape: (items,).
        offsets: where each leaf's rows begin in `rows`, closed by the number of items. Shape: (leaves + 1,).
    """

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int64]
    leaf: NDArray[np.int64]
    rows: Rows
    offsets: NDArray[np.int64]

    @classmethod
    def build(cls, answer: Callable[[int], NDArray[np.int32]], items: int) -> Trie:
        """Sorts the answers of a catalogue.

        Args:
            answer: token ids of a row's title and its end token.
            items: rows in the catalogue.

        Raises:
            ConfigError: no items.
            DataError: one answer is the beginning of another, so that no model could write the longer one.
        """
        if items < 1:
            raise ConfigError("a trie needs items", got=items, expected="at least 1")
        answers = [answer(row) for row in range(items)]
        table = np.full((items, max(map(len, answers))), PADDING, dtype=np.int32)
        for row, ids in enumerate(answers):
            table[row, : len(ids)] = ids
        distinct, leaf = np.unique(table, axis=0, return_inverse=True)
        leaf = leaf.reshape(-1).astype(np.int64)
        rows = np.argsort(leaf, kind="stable").astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(leaf, minlength=len(distinct)))]).astype(np.int64)
        # Columns are what the search reads: one gather over all lines at the root.
        trie = cls(np.asfortranarray(distinct), (distinct != PADDING).sum(axis=1), leaf, rows, offsets)
        trie._refuse_prefixes()
        return trie

    def _refuse_prefixes(self) -> None:
        before, after = self.tokens[:-1], self.tokens[1:]
        shared = np.where(before == after, True, before == PADDING).all(axis=1)
        if shared.any():
            place = int(np.flatnonzero(shared)[0])
            short, long = (int(self.rows[self.offsets[leaf]]) for leaf in (place, place + 1))
            raise DataError(
                "an answer is the beginning of another, so the longer one could never be written",
                got=f"rows {short} and {long}",
                expected="titles without the token that ends an answer",
                cure="take the line break or end token out of the title, or use a template with another end",
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def rows_of(self, leaf: int) -> Rows:
        """Catalogue rows of one leaf, ascending."""
        return self.rows[self.offsets[leaf] : self.offsets[leaf + 1]]

    def leaves(self, allowed: NDArray[np.bool_]) -> Leaves:
        """The leaves that still hold an allowed row, in order. `allowed` has shape (items,)."""
        if allowed.all():
            return np.arange(len(self), dtype=np.int64)
        kept = np.zeros(len(self), dtype=bool)
        kept[self.leaf[allowed]] = True
        return np.flatnonzero(kept)

    def children(self, leaves: Leaves, low: int, high: int, depth: int) -> Children:
        """The continuations of the node `leaves[low:high]`, whose lines share their first `depth` tokens.

        Args:
            leaves: what `leaves` gave.
            low: first place of the node.
            high: place behind its last.
            depth: token to choose, counted from 0; smaller than the node's shortest answer.
        """
        column = self.tokens[leaves[low:high], depth]
        starts = np.concatenate([[0], np.flatnonzero(column[1:] != column[:-1]) + 1])
        stops = np.concatenate([starts[1:], [high - low]])
        return Children(column[starts].astype(np.int64), low + starts, low + stops)

    def reach(self, leaves: Leaves, low: int, high: int) -> int:
        """Depth of the next token to choose below a node: everything before it is the same in all its lines.

        For a single leaf that is its last token, which is read like a choice among one.
        """
        first, last = leaves[low], leaves[high - 1]
        if first == last:
            return int(self.lengths[first]) - 1
        # Sorted lines: what the first and the last share, all between them share.
        return int(np.argmin(self.tokens[first] == self.tokens[last]))
