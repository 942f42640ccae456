"""Counts that training examples give: popularity, transitions, co-occurrence, and the scores they make. Numpy only.

On Amazon CDs these counts beat every published LLM recommender at top-10, so they are opponents (`baselines`) as much
as evidence to put beside a thought. Only training examples may be counted; each is counted once with its own history,
also where the windows of one user overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import read_arrays, write_arrays
from l2d.errors import ArtifactCorrupt, ConfigError, InternalError
from l2d.interactions import Examples
from l2d.ranking import Rows

CELLS = 1 << 22
"""Scores held in float64 at once while summing: 32 MiB."""

LINK_PARTS = ("starts", "targets", "weights")


def blocks(requests: int, items: int) -> Iterator[slice]:
    """Slices of the requests whose dense scores fit into `CELLS`; one empty slice where there are no requests."""
    step = max(1, CELLS // items)
    return (slice(begin, min(begin + step, requests)) for begin in range(0, max(requests, 1), step))


@dataclass(frozen=True)
class Links:
    """A sparse matrix of weights from an item to the items that came after it, as compressed rows.

    Args:
        starts: where each item's links begin, closed by their number. Shape: (items + 1,), int64.
        targets: the items linked to, ascending within one item. Shape: (links,), int32.
        weights: positive. Shape: (links,), float64.

    Raises:
        InternalError: the arrays do not make such a matrix.
    """

    starts: NDArray[np.int64]
    targets: Rows
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        lengths = (len(self.starts), len(self.targets), len(self.weights))
        whole = lengths[0] > 0 and self.starts[0] == 0 and self.starts[-1] == lengths[1] == lengths[2]
        if not whole or (np.diff(self.starts) < 0).any() or ((self.targets < 0) | (self.targets >= self.items)).any():
            raise InternalError("links do not make a sparse matrix", got=lengths)

    @property
    def items(self) -> int:
        """Side of the matrix."""
        return len(self.starts) - 1

    @property
    def sources(self) -> NDArray[np.int64]:
        """The item that each link comes from. Shape: (links,)."""
        return np.repeat(np.arange(self.items, dtype=np.int64), np.diff(self.starts))

    @classmethod
    def from_keys(cls, keys: NDArray[np.int64], weights: NDArray[np.float64], items: int) -> Links:
        """Links from ascending, distinct keys `source * items + target`."""
        starts = np.searchsorted(keys, np.arange(items + 1, dtype=np.int64) * items)
        return cls(starts.astype(np.int64), (keys % items).astype(np.int32), weights.astype(np.float64))

    def without(self, rows: NDArray[np.bool_]) -> Links:
        """Only the links that neither come from the marked items nor lead to them. Shape of the marks: (items,)."""
        source = self.sources
        kept = ~(rows[source] | rows[self.targets])
        return Links.from_keys(source[kept] * self.items + self.targets[kept], self.weights[kept], self.items)

    def joined(self, other: Links) -> Links:
        """The sums of two matrices of one catalogue."""
        keys = np.concatenate([part.sources * self.items + part.targets for part in (self, other)])
        keys, place = np.unique(keys, return_inverse=True)
        weights = np.bincount(place, np.concatenate([self.weights, other.weights]), len(keys))
        return Links.from_keys(keys, weights.astype(np.float64, copy=False), self.items)

    def of(self, row: int) -> tuple[Rows, NDArray[np.float64]]:
        """What one item links to, and how strongly."""
        span = slice(self.starts[row], self.starts[row + 1])
        return self.targets[span], self.weights[span]

    def scores(self, histories: Sequence[Rows], fading: float = 1.0) -> NDArray[np.float32]:
        """Sum over a history of the links of its items, each weighted by lag^-fading; the last item has lag 1.

        Sums are float64 in the history's own order, hence the same in any batch, and cast to float32 at the end, which
        merges sums that differ by rounding only (1/5 + 1/10 and 3/10): without it, ties would be settled by noise.

        Args:
            histories: rows, oldest first; an empty history scores zero everywhere.
            fading: 0 weighs all items of a history alike.

        Returns:
            Shape: (histories, items).
        """
        dense = np.empty((len(histories), self.items), dtype=np.float32)
        for block in blocks(len(histories), self.items):
            dense[block] = self._sums(histories[block], fading)
        return dense

    def _sums(self, histories: Sequence[Rows], fading: float) -> NDArray[np.float64]:
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        source = np.concatenate([np.empty(0, np.int32), *histories])
        ends = np.repeat(np.cumsum(lengths), lengths)
        lag = ends - np.arange(len(source))
        request = np.repeat(np.arange(len(histories)), lengths)
        fan = self.starts[source + 1] - self.starts[source]
        place = np.arange(fan.sum()) + np.repeat(self.starts[source] - (np.cumsum(fan) - fan), fan)
        cell = np.repeat(request * self.items, fan) + self.targets[place]
        sums = np.bincount(cell, self.weights[place] / np.repeat(lag**fading, fan), len(histories) * self.items)
        return sums.astype(np.float64, copy=False).reshape(len(histories), self.items)


@dataclass(frozen=True)
class Evidence:
    """What the training examples count.

    Args:
        popularity: training examples per target. Shape: (items,), int64.
        transitions: how often a history's last item was followed by the target.
        cooccurrence: over all items of a history, how often the target followed, each time counting 1/lag.

    Raises:
        InternalError: the three are not of one catalogue.
    """

    popularity: NDArray[np.int64]
    transitions: Links
    cooccurrence: Links

    def __post_init__(self) -> None:
        sides = (len(self.popularity), self.transitions.items, self.cooccurrence.items)
        if len(set(sides)) > 1:
            raise InternalError("counts are of different catalogues", got=sides)

    @classmethod
    def learn(cls, train: Examples, items: int) -> Evidence:
        """Counts the training examples.

        Whole counts are kept per lag and divided once, so the order of the examples does not change a bit. Memory is
        that of the distinct pairs, not of all pairs.

        Args:
            train: training examples, and nothing later.
            items: items in the catalogue.

        Raises:
            ConfigError: an example points outside the catalogue.
        """
        largest = int(train.interactions.row.max())
        if largest >= items:
            raise ConfigError(
                "an interaction points outside the catalogue", got=f"row {largest}", expected=f"less than {items}"
            )
        keys: NDArray[np.int64] = np.empty(0, np.int64)
        weights: NDArray[np.float64] = np.empty(0, np.float64)
        transitions = Links.from_keys(keys, weights, items)
        for lag in range(1, int(train.history_length.max(initial=0)) + 1):
            pairs, times = np.unique(_pairs(train, items, lag), return_counts=True)
            if lag == 1:
                transitions = Links.from_keys(pairs, times.astype(np.float64), items)
            keys, place = np.unique(np.concatenate([keys, pairs]), return_inverse=True)
            added = np.bincount(place, np.concatenate([weights, times / lag]), len(keys))
            weights = added.astype(np.float64, copy=False)
        popularity = np.bincount(train.target, minlength=items).astype(np.int64, copy=False)
        return cls(popularity, transitions, Links.from_keys(keys, weights, items))

    @property
    def items(self) -> int:
        """Items in the catalogue."""
        return len(self.popularity)

    def transition_scores(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """How often each item came right after the last item of each history. Shape: (histories, items)."""
        return self.transitions.scores([history[-1:] for history in histories])

    def cooccurrence_scores(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """Co-occurrence with each history, its items weighted by 1/lag. Shape: (histories, items)."""
        return self.cooccurrence.scores(histories)

    def associations(self, backwards: float, damping: float) -> Links:
        """Co-occurrence in both directions, with the links of well-connected items damped.

        The link from u to v weighs w(u, v) + backwards * w(v, u), divided by the sum of u's links, where that is above
        1, to the power `damping`.

        Args:
            backwards: what an item that came before counts, against 1 for one that came after.
            damping: 0 leaves the weights as they are, 1 makes those of each item sum to one.
        """
        forward, items = self.cooccurrence, self.items
        source = forward.sources
        keys = np.concatenate([source * items + forward.targets, forward.targets.astype(np.int64) * items + source])
        weights = np.concatenate([forward.weights, backwards * forward.weights])
        keys, place = np.unique(keys[weights > 0], return_inverse=True)
        joined = np.bincount(place, weights[weights > 0], len(keys))
        totals = np.bincount(keys // items, joined, items)
        return Links.from_keys(keys, joined / np.maximum(totals, 1.0)[keys // items] ** damping, items)

    def joined(self, other: Evidence) -> Evidence:
        """The counts of two sets of examples of one catalogue; co-occurrence as if learnt at once, within rounding."""
        links = (self.transitions.joined(other.transitions), self.cooccurrence.joined(other.cooccurrence))
        return Evidence(self.popularity + other.popularity, *links)

    def without(self, rows: NDArray[np.bool_]) -> Evidence:
        """The counts as if the marked items were unknown. Shape of the marks: (items,)."""
        links = (self.transitions.without(rows), self.cooccurrence.without(rows))
        return Evidence(np.where(rows, 0, self.popularity), *links)

    def save(self, path: Path) -> None:
        """Writes an .npz file, atomically."""
        arrays: dict[str, NDArray[Any]] = {"popularity": self.popularity}
        for name, links in (("transitions", self.transitions), ("cooccurrence", self.cooccurrence)):
            arrays |= {f"{name}_{part}": getattr(links, part) for part in LINK_PARTS}
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Reads what `save` wrote.

        Raises:
            ArtifactMissing: there is no such file.
            ArtifactCorrupt: it is not what was written.
        """
        arrays = read_arrays(path)
        try:
            names = ("transitions", "cooccurrence")
            links = [Links(*(arrays[f"{name}_{part}"] for part in LINK_PARTS)) for name in names]
            return cls(arrays["popularity"], *links)
        except (KeyError, InternalError) as error:
            raise ArtifactCorrupt(
                f"{path} does not hold counts", got=error, cure="rebuild the stage that wrote it"
            ) from error


def _pairs(examples: Examples, items: int, lag: int) -> NDArray[np.int64]:
    """Keys of (item `lag` places before the target, target) for every history that long."""
    end = examples.end[examples.history_length >= lag]
    row = examples.interactions.row
    return row[end - lag].astype(np.int64) * items + row[end]
