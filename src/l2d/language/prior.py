"""Where titles go on before any model is asked: the guess that drafts are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError
from l2d.language.trie import Children, Leaves, Trie


class Prior:
    """How much of the catalogue lies below each node of one request's trie.

    Args:
        leaves: the request's leaves, as `Trie.leaves` gives them.
        weights: weight of each leaf of the catalogue, as `leaf_weights` gives them. Shape: (all leaves,).
    """

    def __init__(self, leaves: Leaves, weights: NDArray[np.float64]) -> None:
        self._before = np.concatenate([[0.0], np.cumsum(weights[leaves])])

    def heaviest(self, children: Children) -> tuple[int, float]:
        """The child with the most weight, the first of equals, and its share of the node's weight."""
        weights = self._before[children.high] - self._before[children.low]
        child = int(np.argmax(weights))
        return child, float(weights[child] / weights.sum())


def leaf_weights(trie: Trie, popularity: NDArray[np.floating] | NDArray[np.integer] | None) -> NDArray[np.float64]:
    """Weight of each leaf: its rows' popularity plus one each, so that no path weighs nothing. Shape: (leaves,).

    Args:
        trie: the catalogue's trie.
        popularity: weight of each row, none negative; None for the same. Shape: (items,).

    Raises:
        ConfigError: popularity does not weigh every row.
    """
    items = len(trie.leaf)
    if popularity is not None and (popularity.shape != (items,) or not (popularity >= 0).all()):
        raise ConfigError(
            "popularity must weigh every row", got=popularity.shape, expected=f"({items},), none negative"
        )
    rows = np.ones(items) if popularity is None else 1 + np.asarray(popularity, dtype=np.float64)
    return np.bincount(trie.leaf, weights=rows, minlength=len(trie)).astype(np.float64)
