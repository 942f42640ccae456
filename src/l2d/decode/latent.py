"""Thought + memory -> Rankings, without a decode step: global (L2D-G), local (L2D-L) and vote.

Filters act before neighbours are taken: an entry whose item may not be recommended is no neighbour, so a filtered
list is as long as an unfiltered one. Items without memory entries are unknown and never appear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError
from l2d.memory import Entries, Filter, ItemVectors, Near, run_sums
from l2d.ranking import NOTHING, Rankings, Requests, Rows

TOGETHER = 1 << 15
"""Neighbours scored at once: 256 MiB in double precision at width 1,024."""


class Scored(NamedTuple):
    """Scores of items for several requests, in any order.

    Args:
        request: whose they are.
        row: the items.
        score: higher is better.
    """

    request: NDArray[np.int64]
    row: Rows
    score: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[Scored]) -> Scored:
        """Several as one."""
        none = cls(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0))
        return cls(*(np.concatenate(column) for column in zip(none, *parts, strict=True)))


Score = Callable[[NDArray[np.float64], Near], Scored]
"""Thoughts and neighbours of requests -> the scores of the neighbours' items."""


class Global:
    """L2D-G (arXiv 2509.11524, section 3): items by the distance of their vectors, score 1 / distance.

    A distance of zero scores +inf.

    Args:
        items: item vectors of the memory.
    """

    name = "global"
    needs_thoughts = True

    def __init__(self, items: ItemVectors) -> None:
        self.items = items

    def rank(self, requests: Requests, k: int) -> Rankings:
        """Ranks all known items for each request and keeps the best k."""
        near = self._near(requests, k)
        return _lists(_by_distance(near.request, near.index, near.squared), len(requests), k)

    def fill(self, requests: Requests, k: int) -> Scored:
        """The k best items of each request, scored minus their distance: below the score of any neighbour's item."""
        near = self._near(requests, k)
        return Scored(near.request, near.index.astype(np.int32), 0.0 - np.sqrt(near.squared))

    def _near(self, requests: Requests, k: int) -> Near:
        known = _frequent(requests, self.items)
        filters = _row_filters(requests, self.items)
        return self.items.points.near(_thoughts(requests), _positive("k", k), filters, known)


class Local:
    """L2D-L (arXiv 2509.11524, section 3): item vectors are means over the M nearest entries alone.

    Only items of those entries are candidates, scored 1 / distance (+inf at distance zero). A list that they do not
    fill goes on with global's order; filled items score minus their distance from the global vector, which is below
    every score above and lets a reader tell the two kinds apart.

    Args:
        entries: the memory.
        items: its item vectors.
        neighbours: M, the entries that a request's item vectors are made of.
        approximate: whether neighbours may come from an index, see `Entries.indexed`.

    Raises:
        ConfigError: M below 1.
    """

    name = "local"
    needs_thoughts = True

    def __init__(self, entries: Entries, items: ItemVectors, neighbours: int, *, approximate: bool = False) -> None:
        self.approximate = approximate
        self.entries = entries
        self.items = items
        self.neighbours = _positive("neighbours", neighbours)

    def rank(self, requests: Requests, k: int) -> Rankings:
        """Ranks the items of each request's neighbours, then the other known items, and keeps the best k."""
        found = neighbourhoods(self.entries, self.items, requests, self.neighbours, approximate=self.approximate)
        return rank_neighbourhoods(found, requests, k, self.score, self.items)

    def score(self, thoughts: NDArray[np.float64], near: Near) -> Scored:
        """Scores of the neighbours' items by the distance of their local means."""
        labels = near.request * len(self.items) + self.entries.row[near.index]
        order = np.argsort(labels, kind="stable")
        labels, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
        request, row = np.divmod(labels, len(self.items))
        means = run_sums(self.entries.thoughts[near.index[order]], starts) / counts[:, None]
        means -= thoughts[request]
        return _by_distance(request, row, np.einsum("ij,ij->i", means, means))


class Vote:
    """Each of the M nearest entries votes for its item with weight exp(-(d^2 - d_min^2) / tau), d its distance.

    d_min is the distance of the nearest one. A list that the neighbours' items do not fill goes on with global's
    order, as `Local`'s does; votes are positive and filled items' scores are not.

    Args:
        entries: the memory.
        items: its item vectors.
        neighbours: M, the entries that vote.
        temperature: tau, in squared units of the thoughts. A small one leaves the nearest entry alone, a large one
            counts heads.
        approximate: whether neighbours may come from an index, see `Entries.indexed`.

    Raises:
        ConfigError: M below 1, or a temperature that is not positive.
    """

    name = "vote"
    needs_thoughts = True

    def __init__(
        self,
        entries: Entries,
        items: ItemVectors,
        neighbours: int,
        temperature: float,
        *,
        approximate: bool = False,
    ) -> None:
        self.approximate = approximate
        if not 0 < temperature < float("inf"):
            raise ConfigError("the temperature must be positive", got=temperature)
        self.entries = entries
        self.items = items
        self.neighbours = _positive("neighbours", neighbours)
        self.temperature = temperature

    def rank(self, requests: Requests, k: int) -> Rankings:
        """Ranks the items of each request's neighbours, then the other known items, and keeps the best k."""
        found = neighbourhoods(self.entries, self.items, requests, self.neighbours, approximate=self.approximate)
        return rank_neighbourhoods(found, requests, k, self.score, self.items)

    def score(self, _: NDArray[np.float64], near: Near) -> Scored:
        """Sums of the votes for the neighbours' items."""
        asking = near.request
        labels, label = np.unique(asking * len(self.items) + self.entries.row[near.index], return_inverse=True)
        nearest = near.squared[near.starts[asking]]
        votes = np.bincount(label, np.exp((nearest - near.squared) / self.temperature), len(labels))
        # A far entry's weight may round to zero as float32; it stays above every filled item.
        request, row = np.divmod(labels, len(self.items))
        return Scored(request, row.astype(np.int32), np.maximum(votes, np.finfo(np.float32).tiny))


def neighbourhoods(
    entries: Entries, items: ItemVectors, requests: Requests, neighbours: int, *, approximate: bool = False
) -> Near:
    """The M nearest allowed entries of each request, nearest first, ties by the smaller sample."""
    known = _frequent(requests, items)
    filters = [
        Filter(*(None if rows is None else entries.places(rows) for rows in (one.barred, one.only)))
        for one in _row_filters(requests, items)
    ]
    frequent = None if known is None else known[entries.row]
    points = entries.indexed if approximate else entries.points
    return points.near(_thoughts(requests), neighbours, filters, frequent).first(neighbours)


def rank_neighbourhoods(found: Near, requests: Requests, k: int, score: Score, items: ItemVectors) -> Rankings:
    """Scores the items of neighbourhoods and fills up short lists from global.

    Args:
        found: the neighbours of each request, nearest first.
        requests: what they belong to.
        k: list length.
        score: how neighbours become scores.
        items: item vectors to fill up from.
    """
    _positive("k", k)
    thoughts = _thoughts(requests).astype(np.float64)
    parts = []
    for part in found.parts(TOGETHER):
        scored = score(thoughts[part], found.part(part))
        parts.append(scored._replace(request=scored.request + part.start))
    listed = Scored.joined(parts)
    short = np.flatnonzero(np.bincount(listed.request, minlength=len(requests)) < k)
    if len(short):
        # At most k - 1 of the k best by global are listed already, so k are enough.
        more = Global(items).fill(requests.take(short.tolist()), k)
        more = more._replace(request=short[more.request])
        fresh = ~np.isin(more.request * len(items) + more.row, listed.request * len(items) + listed.row)
        listed = Scored.joined([listed, Scored(more.request[fresh], more.row[fresh], more.score[fresh])])
    return _lists(listed, len(requests), k)


def _frequent(requests: Requests, items: ItemVectors) -> NDArray[np.bool_] | None:
    """Items with enough entries; None where one will do. Shape: (items,)."""
    return items.counts >= requests.minimum_entries if requests.minimum_entries > 1 else None


def _row_filters(requests: Requests, items: ItemVectors) -> list[Filter]:
    """What each request may be answered with, in rows; empty where that is everything."""
    if not requests.filtered:
        return []
    known = items.counts >= max(1, requests.minimum_entries)
    filters = []
    for index in range(len(requests)):
        if requests.allow is not None and requests.allow[index] is not None:
            filters.append(Filter(only=np.flatnonzero(known & requests.candidates(index, len(items)))))
        else:
            rows = requests.exclude[index] if requests.exclude is not None else np.empty(0, np.int32)
            filters.append(Filter(barred=rows.astype(np.int64)))
    return filters


def _by_distance(request: NDArray[np.int64], row: NDArray[np.int64], squared: NDArray[np.float64]) -> Scored:
    with np.errstate(divide="ignore", over="ignore"):
        return Scored(request, row.astype(np.int32), 1 / np.sqrt(squared))


def _lists(scored: Scored, requests: int, k: int) -> Rankings:
    """The k best of each request by their scores in single precision, ties by the smaller row."""
    rows = np.full((requests, k), NOTHING, dtype=np.int32)
    scores = np.full((requests, k), -np.inf, dtype=np.float32)
    score = scored.score.astype(np.float32)
    order = np.lexsort((scored.row, -score, scored.request))
    request = scored.request[order]
    place = np.arange(len(order)) - np.searchsorted(request, request)
    first = place < k
    cells = request[first], place[first]
    rows[cells], scores[cells] = scored.row[order[first]], score[order[first]]
    return Rankings(rows, scores)


def _thoughts(requests: Requests) -> NDArray[np.float32]:
    if requests.thoughts is None:
        raise ConfigError("latent decoders need the requests' thoughts", cure="fill Requests.thoughts with a Thinker")
    return requests.thoughts


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name} is too small", got=value, expected="at least 1")
    return value
