"""Rankings + what came next -> HR, Recall, NDCG, MRR per user and averaged, with intervals and slices. Numpy only.

Every metric here is a function of one number per example: the place of the first hit. So that place is computed once
(`hit_ranks`), and a metric is a small table over places (`metric_table`); averages, slices, intervals and paired tests
all read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.errors import ArtifactMismatch, ConfigError
from l2d.interactions import UNKNOWN_TIME, Examples
from l2d.ranking import NOTHING, Rankings, Rows

CUTOFFS = (1, 5, 10, 20, 50, 100)
"""List lengths at which quality is reported, as far as the rankings reach."""

MISSED = 0
"""Place of a target that is not in the list; hits count from 1."""

COVERAGE = 95.0
"""Share of the bootstrap means, in percent, that lies inside an interval."""

Match = Literal["id", "title"]
Ranks = NDArray[np.int32]
Floats = NDArray[np.float64]


def hit_ranks(rankings: Rankings, targets: Rows, catalog: Catalog, match: Match = "id") -> Ranks:
    """Where each target stands in its list.

    Lists are judged as they are: ties were settled by the decoder (the smaller row first). Matching by title, the
    first row whose title is the target's counts, at its own place in the list; other titles' duplicates before it keep
    their places. That is how BIGRec and D3 (arXiv 2406.14900) compare generated titles. Their trie never lists a title
    twice, so a list of items is at no advantage over theirs; removing duplicates first would add at most .0004 to HR@5
    of co-occurrence on Amazon CDs.

    Args:
        rankings: the lists. Shape: (examples, k).
        targets: the row that came next. Shape: (examples,).
        catalog: the items that rows point to.
        match: whether the very item counts, or any item with its title.

    Returns:
        Places from 1 to k, `MISSED` where the target is not listed. Shape: (examples,).

    Raises:
        ConfigError: not one target per ranking.
        ArtifactMismatch: a ranking or target points outside the catalogue.
    """
    _check(rankings, targets, catalog)
    listed, wanted = rankings.rows, targets
    if match == "title":
        listed = np.where(listed == NOTHING, NOTHING, catalog.title_group[listed])
        wanted = catalog.title_group[targets]
    hits = listed == wanted[:, None]
    if not rankings.k:
        return np.full(len(targets), MISSED, dtype=np.int32)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, MISSED).astype(np.int32)


def metric_table(k: int) -> dict[str, Floats]:
    """What each metric is worth at each place, for a single target.

    With t the place: HR@n = Recall@n = [t <= n] (one target: the two agree, both are reported because papers differ
    in the name), NDCG@n = [t <= n] / log2(t + 1) (Järvelin and Kekäläinen 2002; the ideal gain is 1),
    MRR@n = [t <= n] / t. A cutoff beyond k is left out: a shorter list would understate it without a sign.

    Returns:
        Tables indexed by place 0 (`MISSED`) to k, by name such as `ndcg@10`. Shape of each: (k + 1,).
    """
    place = np.arange(1, k + 1)
    gains = {"hr": np.ones(k), "recall": np.ones(k), "ndcg": 1 / np.log2(place + 1), "mrr": 1 / place}
    return {
        f"{name}@{cutoff}": np.concatenate([[0.0], np.where(place <= cutoff, gain, 0.0)])
        for name, gain in gains.items()
        for cutoff in CUTOFFS
        if cutoff <= k
    }


def per_example(rankings: Rankings, targets: Rows, catalog: Catalog, match: Match = "id") -> dict[str, Floats]:
    """Every metric for every example. Shape of each: (examples,). Arguments and errors as for `hit_ranks`."""
    ranks = hit_ranks(rankings, targets, catalog, match)
    return {name: table[ranks] for name, table in metric_table(rankings.k).items()}


def slices_of(examples: Examples, train_counts: NDArray[np.integer[Any]]) -> dict[str, NDArray[np.bool_]]:
    """Parts of the examples that hide behind an average. Shape of each: (examples,).

    - `same_time`, `later`: the target's time equals, or is after, that of the history's last item; `unknown_time`:
      one of the two is not known. Where a log knows days only, same-time targets mostly follow the order of its file.
    - `freq_*`: how many training examples have that target.
    - `history_*`: items in the history as the decoder sees it.
    - `repeat`, `new`: whether the target is already in that history.

    An example whose target is earlier than its history, or whose history is empty, lies in no slice of that kind.
    """
    before, when = examples.last_timestamp, examples.timestamp
    known = (before != UNKNOWN_TIME) & (when != UNKNOWN_TIME)
    frequency = train_counts[examples.target]
    length = examples.history_length
    repeat = _repeats(examples)
    return {
        "same_time": known & (when == before),
        "later": known & (when > before),
        "unknown_time": ~known,
        "freq_0": frequency == 0,
        "freq_1_2": (frequency >= 1) & (frequency <= 2),
        "freq_3_5": (frequency >= 3) & (frequency <= 5),
        "freq_6_more": frequency >= 6,
        "history_1": length == 1,
        "history_2_4": (length >= 2) & (length <= 4),
        "history_5_9": (length >= 5) & (length <= 9),
        "history_10_more": length >= 10,
        "repeat": repeat,
        "new": ~repeat,
    }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one decoder's rankings are worth.

    Args:
        users: examples judged.
        metrics: mean of each metric, the item itself being the hit.
        intervals: bootstrap interval of each mean, (low, high).
        title_match: mean of each metric, any item with the target's title being a hit.
        slices: means by id within each part, with its number of users; a part without users has no means.
        k: length of the lists judged.
        ranks: place of each target by id, kept for paired tests. Shape: (examples,).
        title_ranks: the same by title. Shape: (examples,).
    """

    users: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    title_match: dict[str, float]
    slices: dict[str, dict[str, float]]
    k: int
    ranks: Ranks
    title_ranks: Ranks

    def values(self, metric: str, match: Match = "id") -> Floats:
        """One metric for every example, in their order. Shape: (examples,).

        Raises:
            ConfigError: no such metric at this list length.
        """
        table = metric_table(self.k)
        if metric not in table:
            raise ConfigError("unknown metric", got=metric, expected=", ".join(table), cure="rank longer lists")
        return table[metric][self.ranks if match == "id" else self.title_ranks]

    def to_json(self) -> dict[str, Any]:
        """The means as JSON values."""
        return {
            "metrics": self.metrics,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "title_match": self.title_match,
            "slices": self.slices,
        }


def evaluate(
    rankings: Rankings,
    examples: Examples,
    catalog: Catalog,
    train_counts: NDArray[np.integer[Any]],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Judges one decoder's lists over the full catalogue. Each example counts once, whoever its user is.

    Args:
        rankings: one list per example, in the examples' order.
        examples: histories and what came next.
        catalog: the items that rows point to.
        train_counts: training examples per target row, for the slices. Shape: (items,).
        seed: of the bootstrap.
        resamples: bootstrap samples behind each interval.

    Raises:
        ConfigError: nothing to judge, or lengths that do not agree.
        ArtifactMismatch: a ranking or target points outside the catalogue.
    """
    if len(examples) == 0 or resamples < 1:
        what = "there are no examples to evaluate" if resamples >= 1 else "resamples is too small"
        raise ConfigError(what, got=min(len(examples), resamples), expected="at least 1")
    if len(train_counts) != len(catalog):
        raise ConfigError("train_counts must match the catalogue", got=len(train_counts), expected=len(catalog))
    ranks = hit_ranks(rankings, examples.target, catalog)
    title_ranks = hit_ranks(rankings, examples.target, catalog, "title")
    return Evaluation(
        users=len(examples),
        metrics=mean_metrics(ranks, rankings.k),
        intervals=bootstrap(ranks, rankings.k, np.random.default_rng(seed), resamples),
        title_match=mean_metrics(title_ranks, rankings.k),
        slices={
            name: {"users": int(part.sum()), **mean_metrics(ranks[part], rankings.k)}
            for name, part in slices_of(examples, train_counts).items()
        },
        k=rankings.k,
        ranks=ranks,
        title_ranks=title_ranks,
    )


def mean_metrics(ranks: Ranks, k: int) -> dict[str, float]:
    """Mean of every metric over some places; empty where there are none, rather than 0."""
    if len(ranks) == 0:
        return {}
    return {name: float(table[ranks].mean()) for name, table in metric_table(k).items()}


def bootstrap(ranks: Ranks, k: int, generator: np.random.Generator, resamples: int) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap of every mean over examples drawn with replacement (Efron and Tibshirani 1993).

    Examples with the same place are exchangeable, so a resample is one multinomial draw over the k + 1 places: the
    same distribution as drawing examples, at a cost that does not grow with their number.
    """
    share = np.bincount(ranks, minlength=k + 1) / len(ranks)
    drawn = generator.multinomial(len(ranks), share, size=resamples) / len(ranks)
    tail = (100 - COVERAGE) / 2
    intervals = {}
    for name, table in metric_table(k).items():
        low, high = np.percentile(drawn @ table, [tail, 100 - tail])
        intervals[name] = (float(low), float(high))
    return intervals


def _repeats(examples: Examples) -> NDArray[np.bool_]:
    """Whether each target stands in its own history. Shape: (examples,)."""
    length = examples.history_length
    example = np.repeat(np.arange(len(examples)), length)
    within = np.arange(len(example)) - np.repeat(np.cumsum(length) - length, length)
    rows = examples.interactions.row[examples.start[example] + within]
    repeats = np.zeros(len(examples), dtype=bool)
    repeats[example[rows == examples.target[example]]] = True
    return repeats


def _check(rankings: Rankings, targets: Rows, catalog: Catalog) -> None:
    if len(rankings) != len(targets):
        raise ConfigError("rankings must match the targets", got=len(rankings), expected=len(targets))
    largest: Mapping[str, int] = {
        "a ranking": int(rankings.rows.max(initial=NOTHING)),
        "a target": int(targets.max(initial=NOTHING)),
    }
    for name, row in largest.items():
        if row >= len(catalog):
            raise ArtifactMismatch(
                f"{name} points outside the catalogue",
                got=f"row {row}",
                expected=f"less than {len(catalog)}",
                cure="use the catalogue that the rankings were made with",
            )
