"""Thought + memory -> Rankings, without a decode step: global (L2D-G), local (L2D-L) and vote.

Filters act before neighbours are taken: an entry whose item may not be recommended is no neighbour, so a filtered
list is as long as an unfiltered one. Items without memory entries are unknown and never appear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError
from l2d.memory import Entries, ItemVectors, Near, run_sums
from l2d.ranking import NOTHING, Rankings, Requests, Rows

Scored = tuple[Rows, NDArray[np.float32]]
"""Rows of one request and their scores, best first, ties by the smaller row."""

Score = Callable[[NDArray[np.float64], Near], Scored]
"""Thought and neighbours of one request -> the scores of the neighbours' items."""


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
        with np.errstate(divide="ignore", over="ignore"):
            found = (_best(near.index, 1 / np.sqrt(near.squared), k) for near in self._near(requests, k))
            return _lists(found, len(requests), k)

    def fill(self, requests: Requests, k: int) -> Iterator[Scored]:
        """The k best items of each request, scored minus their distance: below the score of any neighbour's item."""
        return (_best(near.index, 0.0 - np.sqrt(near.squared), k) for near in self._near(requests, k))

    def _near(self, requests: Requests, k: int) -> Iterator[Near]:
        return self.items.points.near(_thoughts(requests), _positive("k", k), known_rows(requests, self.items))


class Local:
    """L2D-L (arXiv 2509.11524, section 3): item vectors are means over the M nearest entries alone.

    Only items of those entries are candidates, scored 1 / distance (+inf at distance zero). A list that they do not
    fill goes on with global's order; filled items score minus their distance from the global vector, which is below
    every score above and lets a reader tell the two kinds apart.

    Args:
        entries: the memory.
        items: its item vectors.
        neighbours: M, the entries that a request's item vectors are made of.

    Raises:
        ConfigError: M below 1.
    """

    name = "local"
    needs_thoughts = True

    def __init__(self, entries: Entries, items: ItemVectors, neighbours: int) -> None:
        self.entries = entries
        self.items = items
        self.neighbours = _positive("neighbours", neighbours)

    def rank(self, requests: Requests, k: int) -> Rankings:
        """Ranks the items of each request's neighbours, then the other known items, and keeps the best k."""
        found = neighbourhoods(self.entries, self.items, requests, self.neighbours)
        return rank_neighbourhoods(found, requests, k, self.score, self.items)

    def score(self, thought: NDArray[np.float64], near: Near) -> Scored:
        """Scores of the neighbours' items by the distance of their local means."""
        order = np.argsort(self.entries.row[near.index], kind="stable")
        places = near.index[order]
        rows, starts, counts = np.unique(self.entries.row[places], return_index=True, return_counts=True)
        means = run_sums(self.entries.thoughts[places], starts) / counts[:, None]
        means -= thought
        with np.errstate(divide="ignore", over="ignore"):
            return _best(rows, 1 / np.sqrt(np.einsum("ij,ij->i", means, means)), len(rows))


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

    Raises:
        ConfigError: M below 1, or a temperature that is not positive.
    """

    name = "vote"
    needs_thoughts = True

    def __init__(self, entries: Entries, items: ItemVectors, neighbours: int, temperature: float) -> None:
        if not 0 < temperature < float("inf"):
            raise ConfigError("the temperature must be positive", got=temperature)
        self.entries = entries
        self.items = items
        self.neighbours = _positive("neighbours", neighbours)
        self.temperature = temperature

    def rank(self, requests: Requests, k: int) -> Rankings:
        """Ranks the items of each request's neighbours, then the other known items, and keeps the best k."""
        found = neighbourhoods(self.entries, self.items, requests, self.neighbours)
        return rank_neighbourhoods(found, requests, k, self.score, self.items)

    def score(self, _: NDArray[np.float64], near: Near) -> Scored:
        """Sums of the votes for the neighbours' items."""
        rows, label = np.unique(self.entries.row[near.index], return_inverse=True)
        weights = np.exp((near.squared[:1] - near.squared) / self.temperature)
        votes = np.bincount(label, weights=weights, minlength=len(rows))
        # A far entry's weight may round to zero as float32; it stays above every filled item.
        return _best(rows, np.maximum(votes, np.finfo(np.float32).tiny), len(rows))


def known_rows(requests: Requests, items: ItemVectors) -> Callable[[int], NDArray[np.bool_]]:
    """The rows that each request may be answered with and that have enough entries. Shape of a mask: (items,)."""
    known = items.counts >= max(1, requests.minimum_entries)
    if not requests.filtered:
        return lambda _: known
    return lambda index: known & requests.candidates(index, len(items))


def neighbourhoods(entries: Entries, items: ItemVectors, requests: Requests, neighbours: int) -> Iterator[Near]:
    """The M nearest allowed entries of each request, nearest first, ties by the smaller sample."""
    rows = known_rows(requests, items)
    everything = not requests.filtered and requests.minimum_entries <= 1
    near = entries.points.near(
        _thoughts(requests), neighbours, lambda index: None if everything else rows(index)[entries.row]
    )
    return (found.first(neighbours) for found in near)


def rank_neighbourhoods(
    found: Iterable[Near], requests: Requests, k: int, score: Score, items: ItemVectors
) -> Rankings:
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
    lists = [_cut(score(thought, near), k) for thought, near in zip(thoughts, found, strict=True)]
    short = [index for index, (rows, _) in enumerate(lists) if len(rows) < k]
    if short:
        # At most k - 1 of the k best by global are listed already, so k are enough.
        for index, scored in zip(short, Global(items).fill(requests.take(short), k), strict=True):
            lists[index] = _extend(lists[index], scored, k)
    return _lists(lists, len(requests), k)


def _extend(listed: Scored, more: Scored, k: int) -> Scored:
    fresh = ~np.isin(more[0], listed[0])
    joined = (np.concatenate([listed[0], more[0][fresh]]), np.concatenate([listed[1], more[1][fresh]]))
    return _cut(joined, k)


def _best(rows: NDArray[np.integer], scores: NDArray[np.float64], k: int) -> Scored:
    rounded = scores.astype(np.float32)
    order = np.lexsort((rows, -rounded))[:k]
    return rows[order].astype(np.int32), rounded[order]


def _cut(scored: Scored, k: int) -> Scored:
    return scored[0][:k], scored[1][:k]


def _lists(found: Iterable[Scored], requests: int, k: int) -> Rankings:
    rows = np.full((requests, k), NOTHING, dtype=np.int32)
    scores = np.full((requests, k), -np.inf, dtype=np.float32)
    for line, (best, value) in enumerate(found):
        rows[line, : len(best)], scores[line, : len(best)] = best, value
    return Rankings(rows, scores)


def _thoughts(requests: Requests) -> NDArray[np.float32]:
    if requests.thoughts is None:
        raise ConfigError("latent decoders need the requests' thoughts", cure="fill Requests.thoughts with a Thinker")
    return requests.thoughts


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name} is too small", got=value, expected="at least 1")
    return value
