"""Exact nearest neighbours: a single-precision scan that may not lose anybody, then distances in double precision.

The scan expands |a - b|^2 = |a|^2 + |b|^2 - 2ab, which a matrix product does fast and rounding spoils: thoughts share a
large common part, so the small difference of two large numbers is what ranks them. Two things repair it. Vectors are
centred by their mean first, and the scan's error is bounded, so that every point whose true distance might be among
the smallest is kept. Only those are measured directly, and only those distances are handed out. Hence the result does
not depend on how requests were batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError, InputError

Mask = NDArray[np.bool_]

BLOCK = 1 << 24
"""Cells of the (requests, points) matrix computed at once: 64 MiB in single precision."""

ROWS = 1 << 14
"""Points centred at once."""

TIE_SLACK = 2.0**-20
"""Relative widening of the last kept squared distance, so that scores that only tie as float32 are all there."""


@dataclass(frozen=True)
class Near:
    """Points near one request.

    Args:
        index: places of the points. Shape: (n,), int64.
        squared: squared Euclidean distances, in double precision. Shape: (n,), float64.
    """

    index: NDArray[np.int64]
    squared: NDArray[np.float64]

    def first(self, count: int) -> Near:
        """The `count` nearest, nearest first, ties by the smaller place."""
        order = np.lexsort((self.index, self.squared))[:count]
        return Near(self.index[order], self.squared[order])


class Points:
    """Vectors to search among, with a centred single-precision copy for the scan.

    Args:
        vectors: float16 or float32, finite. Shape: (n, width).
        known: points that the centre is the mean of; None for all. Shape: (n,).
    """

    def __init__(self, vectors: NDArray[Any], known: Mask | None = None) -> None:
        self.vectors = vectors
        n, width = vectors.shape
        self._centre = mean(vectors if known is None else vectors[known])
        self._centred = np.empty((n, width), dtype=np.float32)
        for start in range(0, n, ROWS):
            self._centred[start : start + ROWS] = vectors[start : start + ROWS] - self._centre
        self._norms = np.einsum("ij,ij->i", self._centred, self._centred)
        # In whatever order `width` terms are summed, the error is at most width * 2^-24 of their absolute sum: once for
        # the products and once for the norms. 16 more units cover the centring and the sums below.
        self._bound = np.float32((2 * width + 16) * 2.0**-24)

    def __len__(self) -> int:
        return len(self.vectors)

    def squared(self, thought: NDArray[np.floating[Any]], index: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Squared distances of one thought to the points at `index`, measured directly. Shape: (index,)."""
        difference = self.vectors[index].astype(np.float64)
        difference -= thought
        return np.einsum("ij,ij->i", difference, difference)

    def near(self, thoughts: NDArray[np.float32], count: int, allowed: Callable[[int], Mask | None]) -> Iterator[Near]:
        """For each request every allowed point that may be among the `count` nearest; unordered, a few more.

        Args:
            thoughts: finite. Shape: (requests, width).
            count: number of neighbours wanted.
            allowed: the points that a request may have, by its place; None for all. Shape of a mask: (n,).

        Raises:
            ConfigError: another width than the points', or a count below 1.
            InputError: a thought is not finite.
        """
        self._check(thoughts, count)
        step = max(1, BLOCK // max(1, len(self)))
        for start in range(0, len(thoughts), step):
            block = thoughts[start : start + step]
            centred = (block - self._centre).astype(np.float32)
            norms = np.einsum("ij,ij->i", centred, centred)
            products = product(-2 * centred, self._centred.T)
            for place in range(len(block)):
                index = self._keep(products[place], norms[place], count, allowed(start + place))
                yield Near(index, self.squared(block[place], index))

    def _keep(self, product: NDArray[np.float32], norm: np.float32, count: int, mask: Mask | None) -> NDArray[np.int64]:
        """Points whose least possible distance is within the `count`-th greatest possible one."""
        places = None if mask is None else np.flatnonzero(mask)
        norms = self._norms if places is None else self._norms[places]
        product = product if places is None else product[places]
        if len(product) <= count:
            return np.arange(len(self)) if places is None else places
        scale = norms + norm
        greatest = product + scale * (1 + self._bound)
        limit = np.partition(greatest, count - 1)[count - 1] * np.float32(1 + TIE_SLACK)
        kept = np.flatnonzero(product + scale * (1 - self._bound) <= limit)
        return kept if places is None else places[kept]

    def _check(self, thoughts: NDArray[np.float32], count: int) -> None:
        if thoughts.ndim != 2 or thoughts.shape[1] != self.vectors.shape[1]:
            raise ConfigError(
                "thoughts do not fit the memory", got=thoughts.shape, expected=f"(requests, {self.vectors.shape[1]})"
            )
        if count < 1:
            raise ConfigError("too few neighbours asked for", got=count, expected="at least 1")
        if not np.isfinite(thoughts).all():
            raise InputError("a thought is not finite", cure="run the backbone in float32")


def product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Matrix product in single precision.

    By torch and not by numpy: each brings threads of its own, which wait by spinning and keep the other's from running.
    With numpy's, a request of a 5-million-parameter backbone took 16 ms on two cores where thinking alone took 7.
    """
    import torch

    return (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()


def mean(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Mean in double precision, without a double-precision copy. Zeros for no vectors. Shape: (width,)."""
    total = np.zeros(vectors.shape[1])
    for start in range(0, len(vectors), ROWS):
        total += vectors[start : start + ROWS].sum(axis=0, dtype=np.float64)
    return total / max(1, len(vectors))
