"""Items as Gaussian classes in thought space: a vector each, a covariance that all share, a prior that fades with time.

Under these assumptions the probability of an item given a thought is a softmax of a linear function (discriminant
analysis, Fisher 1936), so that a request costs one product with a matrix of the size of the item vectors, as in global.
An item without samples has a place, too: its vector is predicted from the thought of a history that holds it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.memory import Entries, ItemVectors
from l2d.memory.nearest import mean, product

ROWS = 1 << 14
"""Entries converted to double precision at once."""

RIDGE = (1e1, 1e2, 1e3, 1e4, 1e5)
"""Penalties of the title map that are tried."""

FOLDS = 5

Chosen = slice | NDArray[np.int64]
"""Some rows of the catalogue."""


@dataclass(frozen=True)
class Spread:
    """How thoughts scatter: over all, and around the vectors of their own items.

    Args:
        centre: mean thought. Shape: (width,), float64.
        total: covariance of all thoughts. Shape: (width, width), float64.
        within: covariance around the items' vectors, unbiased, over items with two entries or more; the total one
            where no item has two.
    """

    centre: NDArray[np.float64]
    total: NDArray[np.float64]
    within: NDArray[np.float64]

    @classmethod
    def of(cls, entries: Entries, items: ItemVectors) -> Spread:
        """Measures a memory. Double precision throughout; a block of entries at a time."""
        width, counts = entries.width, items.counts[entries.row]
        centre = mean(entries.thoughts)
        total, within = np.zeros((width, width)), np.zeros((width, width))
        for block in _slices(len(entries)):
            thoughts = entries.thoughts[block].astype(np.float64)
            around = thoughts - centre
            total += around.T @ around
            own = (thoughts - items.vectors[entries.row[block]]) * _unbiased(counts[block])[:, None]
            within += own.T @ own
        repeated = int((counts > 1).sum())
        total /= max(1, len(entries))
        return cls(centre, total, within / repeated if repeated else total)

    @cached_property
    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues of `within`, relative to their mean, and eigenvectors as columns."""
        values, vectors = np.linalg.eigh(self.within)
        mean = values.mean()
        return np.maximum(values, 0.0) / (mean if mean > 0 else 1.0), vectors

    def metric(self, shrinkage: float | None) -> NDArray[np.float64]:
        """Matrix M such that |h M| is the distance of a centred thought, in units of the thoughts' own scatter.

        The covariance is that within items plus `shrinkage` times its mean variance in every direction (Friedman 1989);
        thoughts have a mean squared distance of 1 from their centre.

        Args:
            shrinkage: positive; None for the plain Euclidean metric.
        """
        if shrinkage not in self._metrics:
            plain = np.eye(len(self.centre))
            if shrinkage is not None:
                values, vectors = self.axes
                plain = vectors / np.sqrt(values + shrinkage)
            scatter = float(np.vdot(plain, self.total @ plain))
            self._metrics[shrinkage] = plain / np.sqrt(scatter if scatter > 0 else 1.0)
        return self._metrics[shrinkage]

    @cached_property
    def _metrics(self) -> dict[float | None, NDArray[np.float64]]:
        """Those that were asked for."""
        return {}


@dataclass(frozen=True)
class TitleMap:
    """From the thought of a history that holds one item alone to that item's vector.

    Args:
        mean: of the thoughts that it was fitted on. Shape: (width,).
        scale: their deviation. Shape: (width,).
        weight: of standardised thoughts. Shape: (width, width).
        bias: what is predicted for the mean. Shape: (width,).
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    @classmethod
    def fit(cls, thoughts: NDArray[np.float32], items: ItemVectors, seed: int = 0) -> TitleMap:
        """Ridge regression on the known items, each weighing the root of its entries.

        The penalty is the one that predicts held-out items best, in five folds.

        Args:
            thoughts: of one-item histories, for every item of the catalogue. Shape: (items, width).
            items: their vectors.
            seed: of the folds.
        """
        known = np.flatnonzero(items.counts > 0)
        source, target = thoughts[known].astype(np.float64), items.vectors[known].astype(np.float64)
        mass = np.sqrt(items.counts[known])
        mean, scale = source.mean(axis=0), np.maximum(source.std(axis=0), 1e-6)
        source = (source - mean) / scale
        fold = np.random.default_rng(seed).integers(0, FOLDS, len(known))
        lost = dict.fromkeys(RIDGE, 0.0)
        for held in range(FOLDS):
            learnt, judged = fold != held, fold == held
            if not learnt.any():
                continue
            solve = _ridge(source[learnt], target[learnt], mass[learnt])
            for penalty in RIDGE:
                weight, bias = solve(penalty)
                missed = source[judged] @ weight + bias - target[judged]
                lost[penalty] += float(mass[judged] @ np.einsum("ij,ij->i", missed, missed))
        best = min(RIDGE, key=lambda penalty: lost[penalty])
        return cls(mean, scale, *_ridge(source, target, mass)(best))

    def __call__(self, thoughts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predicted item vectors. (n, width) -> (n, width)."""
        return (((thoughts - self.mean) / self.scale) @ self.weight + self.bias).astype(np.float32)


class ItemClasses:
    """The probability of every item given a thought.

    Args:
        spread: centre and covariance of the thoughts.
        vectors: one per item. Shape: (items, width).
        prior: not normalised; 0 for items that are never answered with. Shape: (items,).
        shrinkage: see `Spread.metric`.
        temperature: positive; of squared distances in the metric.
    """

    def __init__(
        self,
        spread: Spread,
        vectors: NDArray[np.floating[Any]],
        prior: NDArray[np.float64],
        *,
        shrinkage: float | None,
        temperature: float,
    ) -> None:
        self._spread, self._metric, self._temperature = spread, spread.metric(shrinkage), temperature
        self._centre = spread.centre.astype(np.float32)
        # Items along the rows: for a single thought that product takes half the time of the other layout's.
        self._weight = np.empty((len(self._centre), len(vectors)), dtype=np.float32)
        self._away = np.empty(len(vectors))
        self._bias, self.known = np.empty(len(vectors), dtype=np.float32), np.empty(len(vectors), dtype=bool)
        for block in _slices(len(vectors)):
            self.place(block, vectors[block])
        self.weigh(slice(None), prior)

    def place(self, rows: Chosen, vectors: NDArray[np.floating[Any]]) -> None:
        """Moves some items to other vectors; `weigh` them afterwards. Shape of the vectors: (rows, width)."""
        placed = (vectors - self._spread.centre) @ self._metric
        self._weight[:, rows] = 2 / self._temperature * (self._metric @ placed.T)
        self._away[rows] = np.einsum("ij,ij->i", placed, placed) / self._temperature

    def weigh(self, rows: Chosen, prior: NDArray[np.float64]) -> None:
        """Gives some items another prior. Shape of the prior: (rows,)."""
        self.known[rows] = prior > 0
        with np.errstate(divide="ignore"):
            self._bias[rows] = np.log(prior).astype(np.float32) - self._away[rows]

    def probabilities(self, thoughts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax over the items with a prior, 0 for the others. (n, width) -> (n, items).

        Items with a prior keep a positive value where theirs would round to zero.
        """
        scores = product(thoughts - self._centre, self._weight)
        scores += self._bias
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return np.maximum(scores, np.finfo(np.float32).tiny, out=scores, where=self.known)


def blended(
    items: ItemVectors, text: NDArray[np.float32] | None, weight: float, rows: Chosen = slice(None)
) -> NDArray[np.float32]:
    """Item vectors drawn toward what titles predict: (n mean + weight text) / (n + weight). Shape: (rows, width).

    An item without entries has its title's vector, so that it moves into its mean as samples arrive.

    Args:
        items: means and how many thoughts each is the mean of.
        text: vectors that titles predict; None leaves the means alone.
        weight: thoughts that a title is worth.
        rows: the items wanted.
    """
    if text is None:
        return items.vectors[rows]
    counts, title = items.counts[rows].astype(np.float32)[:, None], text[rows]
    drawn = (counts * items.vectors[rows] + np.float32(weight) * title) / np.maximum(counts + np.float32(weight), 1e-9)
    return np.where(counts > 0, drawn, title).astype(np.float32)


def _ridge(
    source: NDArray[np.float64], target: NDArray[np.float64], mass: NDArray[np.float64]
) -> Callable[[float], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Weighted ridge regression with a free intercept: from a penalty to weight and bias."""
    share = mass / mass.sum()
    middle, goal = share @ source, share @ target
    centred = source - middle
    weighed = (centred * mass[:, None]).T
    gram, wanted = weighed @ centred, weighed @ (target - goal)

    def solve(penalty: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weight = np.linalg.solve(gram + penalty * np.eye(len(gram)), wanted)
        return weight, goal - middle @ weight

    return solve


def _slices(count: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, count, ROWS)]


def _unbiased(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Root of n / (n - 1), which undoes that a mean lies too near to its own samples; 0 for a single one."""
    several = np.maximum(counts, 2)
    return np.where(counts > 1, np.sqrt(several / (several - 1)), 0.0)
