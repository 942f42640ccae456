"""Users' sequences cut into training windows, anew in each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from l2d.interactions import Examples, chains
from l2d.ranking import Rows


class Window(NamedTuple):
    """A stretch of one sequence.

    Args:
        rows: oldest first; each but the first is a target whose history is what stands before it.
        opens: whether the sequence begins here, which makes the first row a target too, of an empty history.
    """

    rows: Rows
    opens: bool


class Windows:
    """Cuts the users' sequences into windows at an offset that is drawn for each sequence and epoch.

    Neighbouring windows share one row, a target in the earlier and history in the later, so that every row of every
    sequence is a target once an epoch, under histories of changing length.

    Args:
        train: the examples, whose windows of one user are joined to sequences.
        length: most items of a history.
        batch: windows in an optimizer step, about.
        seed: of offsets and order.
    """

    def __init__(self, train: Examples, length: int, batch: int, seed: int) -> None:
        self.sequences = chains(train)
        self.length, self.seed = length, seed
        # Offsets move the number of windows from epoch to epoch; no epoch has fewer than this.
        fewest = sum(-(-max(1, len(rows) - 1) // length) for rows in self.sequences)
        self.steps = -(-fewest // batch)

    def batches(self, epoch: int) -> Iterator[list[Window]]:
        """The windows of an epoch, shuffled, in `steps` batches."""
        generator = np.random.default_rng([self.seed, epoch])
        offsets = generator.integers(1, self.length + 1, size=len(self.sequences)).tolist()
        windows = [
            window
            for rows, offset in zip(self.sequences, offsets, strict=True)
            for window in cut(rows, offset, self.length)
        ]
        for places in np.array_split(generator.permutation(len(windows)), self.steps):
            yield [windows[place] for place in places]


def cut(rows: Rows, offset: int, length: int) -> Sequence[Window]:
    """Windows of one sequence: the first holds `offset` histories' worth of targets, the others `length`."""
    last = len(rows) - 1
    bounds = [0, *range(offset, last, length), last]
    return [Window(rows[a : b + 1], opens=a == 0) for a, b in pairwise(bounds)]
