"""The items that a trained peer knows, and rankings over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError
from l2d.interactions import Examples
from l2d.ranking import NOTHING, Rankings, Requests, Rows, top_k

IGNORED = -100
"""Column of an item that is not known; torch's cross-entropy leaves such targets out."""


@dataclass(frozen=True)
class KnownItems:
    """The targets of the training examples: what a peer's softmax is over.

    An item that never was a target has nothing but a random start to be scored by, so it is never recommended, as it
    is unknown to every latent decoder.

    Args:
        rows: ascending. Shape: (known,), int32.
        items: catalogue size.
    """

    rows: Rows
    items: int

    @classmethod
    def of(cls, targets: Rows, items: int) -> KnownItems:
        """The distinct targets.

        Raises:
            ConfigError: there are none, or one lies outside the catalogue.
        """
        rows = np.unique(targets).astype(np.int32)
        if not len(rows) or rows[0] < 0 or rows[-1] >= items:
            got = f"rows {rows[0]} to {rows[-1]}" if len(rows) else "no training example"
            raise ConfigError("no such targets to learn from", got=got, expected=f"rows below {items}")
        return cls(rows, items)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """Place of each row among the known ones, `IGNORED` for the others. Shape: (items,)."""
        columns = np.full(self.items, IGNORED, dtype=np.int64)
        columns[self.rows] = np.arange(len(self.rows))
        return columns

    def counts(self, targets: Rows) -> NDArray[np.int64]:
        """Examples of each known item. Shape: (known,)."""
        return np.bincount(self.columns[targets], minlength=len(self)).astype(np.int64)

    def spread(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of known items as scores of the catalogue, -inf elsewhere. (n, known) -> (n, items)."""
        dense = np.full((len(scores), self.items), -np.inf, dtype=np.float32)
        dense[:, self.rows] = scores
        return dense

    def rank(self, scores: NDArray[np.float32], requests: Requests, k: int) -> Rankings:
        """The k best known rows that each request allows. Shape of scores: (requests, known)."""
        allowed = None
        if requests.filtered:
            places = range(len(requests))
            allowed = np.array([requests.candidates(place, self.items)[self.rows] for place in places])
        found = top_k(scores, k, allowed)
        rows = np.where(found.rows == NOTHING, NOTHING, self.rows[found.rows]).astype(np.int32)
        return Rankings(rows, found.scores)


def seen_rows(examples: Examples, items: int) -> NDArray[np.bool_]:
    """Whether each item is in a history or a target of the examples. Shape: (items,)."""
    covered = np.zeros(len(examples.interactions) + 1, dtype=np.int64)
    np.add.at(covered, examples.start, 1)
    np.add.at(covered, examples.end + 1, -1)
    seen = np.zeros(items, dtype=bool)
    seen[examples.interactions.row[np.cumsum(covered[:-1]) > 0]] = True
    return seen
