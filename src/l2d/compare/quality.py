"""What a row's lists are worth on the users it was asked about, over the seeds it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.compare.significance import RESAMPLES, holm, mean_interval, sign_flip_p
from l2d.evaluate import Evaluation, evaluate
from l2d.interactions import Examples
from l2d.ranking import Rankings

TESTED = tuple(f"{metric}@{cutoff}" for metric in ("hr", "ndcg") for cutoff in (10, 20, 50))
"""Metrics on which rows are tested against the first, as far as both have them."""

Judge = Callable[[Rankings, NDArray[np.int64]], Evaluation]
"""Lists and the places of the examples that they belong to -> what they are worth."""


def judge_of(examples: Examples, catalog: Catalog, counts: NDArray[np.integer[Any]], seed: int) -> Judge:
    """`evaluate` for any part of the examples; `counts` are training examples per item, shape (items,)."""

    def judge(rankings: Rankings, places: NDArray[np.int64]) -> Evaluation:
        return evaluate(rankings, examples.take(places), catalog, counts, seed=seed, resamples=RESAMPLES)

    return judge


@dataclass(frozen=True, eq=False)
class Quality:
    """One row's quality on some users.

    Args:
        places: the examples judged, increasing places in the split. Shape: (users,).
        evaluations: one per seed, of these examples in this order.
        seed: of the bootstrap.
    """

    places: NDArray[np.int64]
    evaluations: Sequence[Evaluation]
    seed: int = 0

    @property
    def users(self) -> int:
        """Examples judged."""
        return len(self.places)

    @property
    def k(self) -> int:
        """Length of the lists judged."""
        return min(evaluation.k for evaluation in self.evaluations)

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric over users and seeds."""
        return _mean([evaluation.metrics for evaluation in self.evaluations])

    def values(self, metric: str) -> NDArray[np.float64]:
        """A metric for every user, the mean over seeds. Shape: (users,)."""
        return np.mean([evaluation.values(metric) for evaluation in self.evaluations], axis=0)

    def at(self, places: NDArray[np.int64], metric: str) -> NDArray[np.float64]:
        """A metric for some of its users. Shape: (places,)."""
        return self.values(metric)[np.searchsorted(self.places, places)]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values; `seeds` stands there only where there are several.

        An interval is about users: it is the bootstrap interval of the mean over seeds. How far seeds are apart
        is said beside it, as the standard deviation of one seed.
        """
        first, *others = self.evaluations
        if not others:
            return {"users": self.users, **first.to_json()}
        return {
            "users": self.users,
            "metrics": self.metrics,
            "intervals": {metric: list(self._interval(metric)) for metric in self.metrics},
            "title_match": _mean([evaluation.title_match for evaluation in self.evaluations]),
            "slices": {
                name: {
                    **_mean([evaluation.slices[name] for evaluation in self.evaluations]),
                    "users": first.slices[name]["users"],
                }
                for name in first.slices
            },
            "seeds": {
                "n": len(self.evaluations),
                "sd": {
                    metric: float(np.std([evaluation.metrics[metric] for evaluation in self.evaluations], ddof=1))
                    for metric in self.metrics
                },
            },
        }

    def _interval(self, metric: str) -> tuple[float, float]:
        return mean_interval(self.values(metric), np.random.default_rng(self.seed))


@dataclass(frozen=True)
class Versus:
    """One metric of a row against the first row's, on the users that both were asked about.

    Args:
        difference: mean of this row's minus the first row's values.
        low: lower end of the paired bootstrap interval of the difference.
        high: its upper end.
        p_holm: paired randomisation test, corrected over all rows that are tested on this metric.
        users: how many users both have.
    """

    difference: float
    low: float
    high: float
    p_holm: float
    users: int


def against_first(qualities: Mapping[str, Quality], seed: int) -> dict[str, dict[str, Versus]]:
    """Tests every row against the first: {row: {metric: Versus}}, nothing for the first itself.

    The correction's family is one metric over all rows: whoever reads down a column of ten tests finds a false alarm in
    it no more often than in one test. Each test draws from the same seed, so a row's interval does not depend on which
    others take part.
    """
    first, *rest = qualities
    found: dict[str, dict[str, Versus]] = {name: {} for name in qualities}
    for metric in TESTED:
        tested = [name for name in rest if metric in qualities[name].metrics and metric in qualities[first].metrics]
        tests = [_paired(qualities[name], qualities[first], metric, seed) for name in tested]
        corrected = holm([p for *_, p, _ in tests])
        for name, (difference, low, high, _, users), p_holm in zip(tested, tests, corrected, strict=True):
            found[name][metric] = Versus(difference, low, high, p_holm, users)
    return found


def _paired(row: Quality, first: Quality, metric: str, seed: int) -> tuple[float, float, float, float, int]:
    """Difference, interval, uncorrected p, users."""
    common = np.intersect1d(row.places, first.places)
    differences = row.at(common, metric) - first.at(common, metric)
    low, high = mean_interval(differences, np.random.default_rng([seed, 17]))
    p = sign_flip_p(differences, np.random.default_rng([seed, 19]))
    return float(differences.mean()), low, high, p, len(common)


def _mean(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means by key over the keys that all tables have."""
    return {
        key: float(np.mean([table[key] for table in tables]))
        for key in tables[0]
        if all(key in table for table in tables)
    }
