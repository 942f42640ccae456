"""Decoders that only count: popularity, transitions, co-occurrence, repeat-last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from l2d.evidence import Evidence, blocks
from l2d.ranking import NOTHING, Rankings, Requests, Rows, top_k


class CountDecoder(ABC):
    """Ranks by a count, the more popular item first among equals, then the smaller row.

    Items that the count says nothing about follow by popularity alone, with scores from -1 up to below 0: every list is
    full, and an empty history or an unseen item gets the most popular items. Popularity is a second key and not a small
    addend, which float32 would lose beside a large count. In the list, a score that popularity put behind an equal one
    is lowered by one float32 step, so that scores and rows alone order a list, as everywhere in l2d.

    Args:
        evidence: the counts of the training examples.
    """

    name: str
    needs_thoughts: bool = False

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        popularity = evidence.popularity
        self._order = np.argsort(-popularity, kind="stable")
        self._prior = (popularity / (popularity.max() + 1) - 1).astype(np.float32)

    @abstractmethod
    def scores(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """The count: higher is better, 0 for no evidence. Shape: (histories, items)."""

    def rank(self, requests: Requests, k: int) -> Rankings:
        """Ranks the whole catalogue for each request, whose `minimum_entries` has no meaning here."""
        places = range(len(requests))
        slices = blocks(len(requests), self.evidence.items)
        return Rankings.concatenate([self._rank_block(requests.take(places[block]), k) for block in slices])

    def _rank_block(self, requests: Requests, k: int) -> Rankings:
        # Columns stand in order of popularity, so top_k's rule, the smaller column first, puts the more popular first.
        order = self._order
        scores = self.scores(requests.histories)
        scores = np.where(scores > 0, scores, self._prior)[:, order]
        allowed = None
        if requests.filtered:
            allowed = np.stack([requests.candidates(index, len(order))[order] for index in range(len(requests))])
        ranked = top_k(scores, k, allowed)
        rows = np.where(ranked.rows == NOTHING, NOTHING, order[ranked.rows]).astype(np.int32)
        return Rankings(rows, _stepped(ranked.scores, self.evidence.popularity[rows]))


class Popularity(CountDecoder):
    """The items with most training examples, for everybody alike."""

    name = "popularity"

    def scores(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """Training examples per item."""
        return np.tile(self.evidence.popularity.astype(np.float32), (len(histories), 1))


class Transitions(CountDecoder):
    """What most often came right after the last item of the history: a first-order Markov chain."""

    name = "transitions"

    def scores(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """Times that each item followed the last one."""
        return self.evidence.transition_scores(histories)


class Cooccurrence(CountDecoder):
    """What came after the items of the history, near ones counting more (1/lag in training and again in scoring)."""

    name = "cooccurrence"

    def scores(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """Co-occurrence of each item with the history."""
        return self.evidence.cooccurrence_scores(histories)


class RepeatLast(CountDecoder):
    """The history again, latest first, then the rest by popularity; shows how much of a metric is repetition."""

    name = "repeat-last"

    def scores(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """1/lag of an item's latest place in the history, 0 outside it."""
        scores = np.zeros((len(histories), self.evidence.items), dtype=np.float32)
        for line, history in zip(scores, histories, strict=True):
            # Oldest first: of an item's several places, the last assigned one stays.
            line[history] = 1 / np.arange(len(history), 0, -1)
        return scores


def count_decoders(evidence: Evidence) -> dict[str, CountDecoder]:
    """Every decoder of this file by its name."""
    return {kind.name: kind(evidence) for kind in (Popularity, Transitions, Cooccurrence, RepeatLast)}


def _stepped(scores: NDArray[np.float32], popularity: NDArray[np.int64]) -> NDArray[np.float32]:
    """Lists whose scores fall by at least one float32 step wherever score or popularity falls.

    Args:
        scores: non-increasing along a list. Shape: (requests, k).
        popularity: of the listed items, non-increasing among equal scores. Shape: (requests, k).
    """
    stepped = scores.copy()
    for place in range(1, scores.shape[1]):
        above = stepped[:, place - 1]
        tied = (scores[:, place] == scores[:, place - 1]) & (popularity[:, place] == popularity[:, place - 1])
        ceiling = np.where(tied, above, np.nextafter(above, np.float32(-np.inf)))
        stepped[:, place] = np.minimum(scores[:, place], ceiling)
    return stepped
