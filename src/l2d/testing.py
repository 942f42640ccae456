"""For tests of l2d and what is built on it: a toy world with a known answer, an engine without weights, contracts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.interactions import Dataset, Interactions, split_leave_last_out
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import NOTHING, Decoder, Rankings, Requests


class WordTokenizer:
    """A tokenizer without files: one token per word or line end, its id a hash of it."""

    fingerprint = "words"
    bos = "<s>"
    eos = "</s>"

    def encode(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Ids of each text alone; specials are words like any other."""
        return [
            [zlib.crc32(word.encode()) % (1 << 24) for word in re.findall(r"</?s>|\n|[^\s<]+|<", text)]
            for text in texts
        ]

    def render_chat(self, message: str) -> str | None:
        """There is no chat template."""
        return None


class DummyThinker:
    """Thoughts without a model: token embeddings drawn by token id, each counting half as much as the one after it.

    Args:
        width: length of a thought.
        seed: draws the embeddings.
    """

    def __init__(self, width: int = 16, seed: int = 0) -> None:
        self.width = width
        self.seed = seed
        self.fingerprint = f"dummy-{width}-{seed}"
        self._embeddings: dict[int, NDArray[np.float64]] = {}

    def think(
        self, prompts: Sequence[NDArray[np.int32]], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Thoughts of prompts, in their order. Shape: (prompts, width)."""
        thoughts = np.zeros((len(prompts), self.width), dtype=np.float32)
        for index, prompt in enumerate(prompts):
            state = np.zeros(self.width)
            for token in prompt.tolist():
                state = 0.5 * state + self._embedding(token)
            thoughts[index] = state
            if progress is not None:
                progress(index + 1, len(prompts))
        return thoughts

    def _embedding(self, token: int) -> NDArray[np.float64]:
        if token not in self._embeddings:
            self._embeddings[token] = np.random.default_rng([self.seed, token]).standard_normal(self.width)
        return self._embeddings[token]


@dataclass(frozen=True)
class ToyWorld:
    """A world in which the next item follows from the last one: rings of items that users walk along.

    Args:
        dataset: catalogue, log and leave-last-out splits; each user's last item is withheld in `splits.test`.
        prompts: the compact template over a word tokenizer.
        thinker: an engine without weights whose thoughts are near where the last items agree.
    """

    dataset: Dataset
    prompts: Prompts
    thinker: DummyThinker

    @property
    def items(self) -> int:
        """Catalogue size."""
        return len(self.dataset.catalog)

    @property
    def targets(self) -> NDArray[np.int32]:
        """The withheld row of each request: it must come first. Shape: (requests,)."""
        return self.dataset.splits.test.target

    def requests(self) -> Requests:
        """One request for each user, with thoughts."""
        histories = self.dataset.splits.test.histories()
        return Requests(histories, self.thinker.think([self.prompts.prompt(history) for history in histories]))


def toy_world(*, rings: int = 3, ring: int = 12, walk: int = 7, width: int = 16) -> ToyWorld:
    """A small deterministic world with a known answer.

    Every item of every ring is where one user starts; a walk is shorter than its ring, so no item repeats. The last
    item of the catalogue is in no log: it is unknown to any memory.

    Args:
        rings: groups of items that never mix.
        ring: items in each.
        walk: items that each user takes; at least 4 and less than `ring`.
        width: length of a thought.
    """
    titles = [f"{chr(ord('A') + group)}{place}" for group in range(rings) for place in range(ring)]
    catalog = Catalog.from_titles([*titles, "unseen"])
    starts = [(group, place) for group in range(rings) for place in range(ring)]
    rows = np.array(
        [[group * ring + (place + step) % ring for step in range(walk)] for group, place in starts], dtype=np.int32
    )
    users = np.repeat(np.arange(len(starts), dtype=np.int32), walk)
    times = np.tile(np.arange(walk, dtype=np.int64) * 86_400, len(starts)) + users
    interactions = Interactions(tuple(f"user {index}" for index in range(len(starts))), users, rows.ravel(), times)
    dataset = Dataset(catalog, interactions, split_leave_last_out(interactions), {"name": "toy"})
    return ToyWorld(dataset, Prompts.compile(COMPACT, WordTokenizer(), catalog), DummyThinker(width))


def check_decoder(
    decoder: Decoder,
    requests: Requests,
    items: int,
    *,
    targets: NDArray[np.int32] | None = None,
    tolerance: float = 0.0,
) -> None:
    """The contract of every decoder and baseline.

    Args:
        decoder: what is tried.
        requests: at least two, without filters, with thoughts if the decoder needs them.
        items: catalogue size.
        targets: rows that must come first, where the world has a known answer.
        tolerance: how far scores of one request may be apart between a batch and alone; 0 for bit-equal lists.

    Raises:
        AssertionError: names the rule that is broken.
    """
    k = min(10, items)
    whole = decoder.rank(requests, k)
    _check_lists(whole, len(requests), k, items)
    if targets is not None:
        _demand((whole.rows[:, 0] == targets).all(), f"{decoder.name}: the withheld item must come first")
    _same(decoder.rank(requests, k), whole, 0.0, f"{decoder.name}: the same requests again must give the same lists")
    singles = Rankings.concatenate([decoder.rank(requests.take([index]), k) for index in range(len(requests))])
    _same(singles, whole, tolerance, f"{decoder.name}: a batch must equal single requests")
    backwards = list(reversed(range(len(requests))))
    turned = decoder.rank(requests.take(backwards), k)
    turned = Rankings(turned.rows[::-1], turned.scores[::-1])
    _same(turned, whole, tolerance, f"{decoder.name}: the order of requests must not matter")
    _check_lengths(decoder, requests, items, whole, tolerance)
    _check_filters(decoder, requests, items, whole)


def _check_lists(rankings: Rankings, requests: int, k: int, items: int) -> None:
    rows, scores = rankings.rows, rankings.scores
    _demand(rows.shape == scores.shape == (requests, k), f"shapes must be ({requests}, {k}), got {rows.shape}")
    _demand(rows.dtype == np.int32 and scores.dtype == np.float32, "rows must be int32 and scores float32")
    _demand(((rows >= 0) & (rows < items) | (rows == NOTHING)).all(), "rows must lie in the catalogue")
    _demand((np.isneginf(scores) == (rows == NOTHING)).all(), "a score is -inf exactly where there is no item")
    _demand((scores[:, :-1] >= scores[:, 1:]).all(), "scores must not rise along a list")
    tied = (scores[:, :-1] == scores[:, 1:]) & (rows[:, 1:] != NOTHING)
    _demand((rows[:, :-1][tied] < rows[:, 1:][tied]).all(), "among equal scores the smaller row comes first")
    for line in rows:
        listed = line[line != NOTHING]
        _demand(len(np.unique(listed)) == len(listed), "no row may stand twice in a list")


def _check_lengths(decoder: Decoder, requests: Requests, items: int, whole: Rankings, tolerance: float) -> None:
    pair = requests.take([0, 1])
    beyond = decoder.rank(pair, items + 3)
    _check_lists(beyond, 2, items + 3, items)
    _demand((beyond.rows[:, items:] == NOTHING).all(), f"{decoder.name}: no list can be longer than the catalogue")
    first = Rankings(beyond.rows[:, : whole.k], beyond.scores[:, : whole.k])
    _same(
        first,
        Rankings(whole.rows[:2], whole.scores[:2]),
        tolerance,
        f"{decoder.name}: a shorter list must begin a longer one",
    )


def _check_filters(decoder: Decoder, requests: Requests, items: int, whole: Rankings) -> None:
    count, k = len(requests), whole.k
    best = [line[:1][line[:1] != NOTHING] for line in whole.rows]
    excluded = decoder.rank(Requests(requests.histories, requests.thoughts, exclude=best), k)
    _check_lists(excluded, count, k, items)
    _demand(
        all(not np.isin(row, line).any() for row, line in zip(best, excluded.rows, strict=True)),
        f"{decoder.name}: an excluded row was recommended",
    )
    # Half of the requests are restricted: a filter must not leak to its neighbours in the batch.
    allow = [None if index % 2 else line[line != NOTHING][1:4] for index, line in enumerate(whole.rows)]
    allowed = decoder.rank(Requests(requests.histories, requests.thoughts, allow=allow), k)
    _check_lists(allowed, count, k, items)
    for index, rows in enumerate(allow):
        listed = allowed.rows[index][allowed.rows[index] != NOTHING]
        if rows is None:
            _demand(
                (allowed.rows[index] == whole.rows[index]).all(),
                f"{decoder.name}: an allow-list reached another request",
            )
        else:
            _demand(np.isin(listed, rows).all(), f"{decoder.name}: a row outside the allow-list was recommended")
            _demand(set(listed) == set(rows), f"{decoder.name}: allowed rows that can be ranked must be listed")
    nothing = Requests(requests.histories, requests.thoughts, allow=[np.empty(0, dtype=np.int32)] * count)
    _demand(
        (decoder.rank(nothing, k).rows == NOTHING).all(), f"{decoder.name}: an empty allow-list must give an empty list"
    )


def _same(got: Rankings, expected: Rankings, tolerance: float, rule: str) -> None:
    if tolerance == 0:
        _demand(np.array_equal(got.rows, expected.rows) and np.array_equal(got.scores, expected.scores), rule)
        return
    near = np.isclose(got.scores, expected.scores, rtol=tolerance, atol=tolerance)
    _demand(bool(near.all()), f"{rule} within {tolerance}")
    # Rows may change places only where scores are as good as equal.
    for line in np.flatnonzero((got.rows != expected.rows).any(axis=1)):
        for place in np.flatnonzero(got.rows[line, :-1] != expected.rows[line, :-1]):
            gaps = np.abs(np.delete(expected.scores[line], place) - expected.scores[line, place])
            _demand(bool(gaps.min() <= 2 * tolerance), f"{rule}: rows differ at place {place} of request {line}")


def _demand(holds: bool | np.bool_, rule: str) -> None:
    if not holds:
        raise AssertionError(rule)


__all__ = ["DummyThinker", "ToyWorld", "WordTokenizer", "check_decoder", "toy_world"]
