"""Many token sequences -> packs: prefix trees laid out depth first, so that a shared prefix is computed once.

Node i is an ancestor of node j exactly when `i <= j < end[i]`, with `end[i]` the position after i's subtree.
Attention may therefore look from q to kv exactly when `kv <= q < end[kv]`, and a node's position id is its depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError

ROOT = -1
"""Parent of a sequence's first node."""


@dataclass(frozen=True)
class Pack:
    """One prefix tree in depth-first order.

    Args:
        ids: token of each node. Shape: (nodes,), int32.
        depth: number of ancestors, the position id. Shape: (nodes,), int32.
        end: position after the node's subtree. Shape: (nodes,), int32.
        parent: position of the parent, `ROOT` for none. Shape: (nodes,), int32.
        weight: number of samples in which the node's token belongs to the answer. Shape: (nodes,), int32.
        sequences: which input sequences the pack holds. Shape: (sequences,), int64.
        read: position of each sequence's last token. Shape: (sequences,), int32.
    """

    ids: NDArray[np.int32]
    depth: NDArray[np.int32]
    end: NDArray[np.int32]
    parent: NDArray[np.int32]
    weight: NDArray[np.int32]
    sequences: NDArray[np.int64]
    read: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


class _Tree:
    """A pack that grows by sequences in lexicographic order."""

    def __init__(self, capacity: int, longest: int) -> None:
        self.nodes = 0
        columns = np.zeros((5, capacity), dtype=np.int32)
        self.ids, self.depth, self.end, self.parent, self.weight = columns
        self.path = np.zeros(longest, dtype=np.int32)
        self.path_length = 0
        self.sequences: list[int] = []
        self.read: list[int] = []

    def add(self, index: int, sequence: NDArray[np.int32], shared: int, answer_start: int) -> None:
        first, length = self.nodes, len(sequence)
        last = first + length - shared
        self.end[self.path[shared : self.path_length]] = first
        self.ids[first:last] = sequence[shared:]
        self.depth[first:last] = np.arange(shared, length)
        self.parent[first:last] = np.arange(first - 1, last - 1)
        if last > first:
            self.parent[first] = self.path[shared - 1] if shared else ROOT
        self.path[shared:length] = np.arange(first, last)
        self.path_length, self.nodes = length, last
        self.weight[self.path[answer_start:length]] += 1
        self.sequences.append(index)
        self.read.append(int(self.path[length - 1]))

    def close(self) -> Pack:
        self.end[self.path[: self.path_length]] = self.nodes
        return Pack(
            ids=self.ids[: self.nodes].copy(),
            depth=self.depth[: self.nodes].copy(),
            end=self.end[: self.nodes].copy(),
            parent=self.parent[: self.nodes].copy(),
            weight=self.weight[: self.nodes].copy(),
            sequences=np.array(self.sequences, dtype=np.int64),
            read=np.array(self.read, dtype=np.int32),
        )


def lexicographic(sequences: Sequence[NDArray[np.int32]]) -> list[int]:
    """Places of the sequences in lexicographic order, equal ones in input order."""
    keys = [np.ascontiguousarray(sequence, dtype=">u4").tobytes() for sequence in sequences]
    return sorted(range(len(keys)), key=keys.__getitem__)


def common_prefix(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Number of leading tokens that two sequences share."""
    shorter = min(len(a), len(b))
    different = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(different[0]) if len(different) else shorter


def pack(sequences: Sequence[NDArray[np.int32]], budget: int, answer_starts: Sequence[int] | None = None) -> list[Pack]:
    """Packs sequences into prefix trees of at most `budget` nodes; a longer sequence gets a pack of its own.

    Args:
        sequences: token ids, each non-empty, in any order.
        budget: most nodes in a pack.
        answer_starts: where each sequence's answer begins, for tuning; None gives weights of zero.

    Returns:
        Packs that together hold every sequence once, the longest pack first, so that neighbours can be stacked with
        little padding. Sequences are packed in lexicographic order, so the packs depend on the set of sequences alone
        (and on input order among equal ones).
    """
    if budget < 1:
        raise ConfigError("a pack needs room", got=budget, expected="at least 1 token")
    if any(len(sequence) == 0 for sequence in sequences):
        raise ConfigError("cannot pack an empty sequence", cure="give the prompt template an opening")
    longest = max((len(sequence) for sequence in sequences), default=0)
    packs: list[Pack] = []
    tree = _Tree(max(budget, longest), longest)
    previous: NDArray[np.int32] | None = None
    for index in lexicographic(sequences):
        sequence = sequences[index]
        shared = common_prefix(previous, sequence) if previous is not None else 0
        if tree.nodes and tree.nodes + len(sequence) - shared > budget:
            packs.append(tree.close())
            tree, shared = _Tree(max(budget, longest), longest), 0
        tree.add(index, sequence, shared, answer_starts[index] if answer_starts is not None else len(sequence))
        previous = sequence
    if tree.nodes:
        packs.append(tree.close())
    return sorted(packs, key=len, reverse=True)
