"""Whether two rows differ: paired bootstrap interval, paired randomisation test, Holm's correction. Numpy only.

All three look at one number per user: the difference of a metric between two rows on the same user. Users with the same
difference are exchangeable, so a resample is a draw of how often each *distinct* difference occurs: the same
distribution as drawing users one by one. Most users have a difference of zero (neither list holds the target), and
6,000 users have a few hundred distinct ones at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError
from l2d.evaluate import COVERAGE

RESAMPLES = 1_000
"""Bootstrap samples behind an interval."""

FLIPS = 10_000
"""Random assignments behind a p-value, which is therefore never below 1 in 10,001."""

CELLS = 1 << 21
"""Cells of the (draws, distinct differences) matrix made at once: 16 MiB."""

TIE = 1e-9
"""Sums that are equal on paper differ by rounding; within this share of the largest possible sum they tie."""

Floats = NDArray[np.float64]


def mean_interval(values: Floats, generator: np.random.Generator, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap of a mean over users drawn with replacement (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: one number per user; for a paired interval the differences. Shape: (users,).
        generator: draws the resamples.
        resamples: how many.

    Returns:
        The bounds within which `COVERAGE` percent of the resampled means lie.

    Raises:
        ConfigError: no users, or fewer than one resample.
    """
    _demand(values, resamples)
    distinct, count = np.unique(values, return_counts=True)
    means = np.concatenate(
        [
            generator.multinomial(len(values), count / len(values), size=draws) @ distinct / len(values)
            for draws in _blocks(resamples, len(distinct))
        ]
    )
    tail = (100 - COVERAGE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def sign_flip_p(differences: Floats, generator: np.random.Generator, flips: int = FLIPS) -> float:
    """Two-sided paired randomisation test (Fisher 1935; for retrieval: Smucker, Allan and Carterette, CIKM 2007).

    If two rows are equally good, it is chance which of them has which value on a user: every difference may as well
    have the other sign. The p-value is the share of random signs whose sum is at least as far from zero as the one
    seen, which itself counts as one of them (Phipson and Smyth 2010), so it is never 0.

    Args:
        differences: one number per user. Shape: (users,).
        generator: draws the signs.
        flips: how many assignments of signs are drawn.

    Raises:
        ConfigError: no users, or fewer than one assignment.
    """
    _demand(differences, flips)
    sizes, count = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    # Of c users with the same size, a binomial number keeps its sign: the sum needs no draw per user.
    reached = abs(float(differences.sum())) - TIE * float(sizes @ count)
    extreme = sum(
        int((np.abs((2 * generator.binomial(count, 0.5, size=(draws, len(count))) - count) @ sizes) >= reached).sum())
        for draws in _blocks(flips, len(sizes))
    )
    return (1 + extreme) / (1 + flips)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the chance of any false alarm in the family stays below the level.

    The i-th smallest of m is multiplied by m - i + 1, is at least as large as those before it, and at most 1.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - place)))
        adjusted[index] = largest
    return adjusted


def _blocks(draws: int, width: int) -> list[int]:
    """Sizes of the blocks that `draws` lines of `width` cells are made in."""
    step = max(1, CELLS // width)
    return [min(step, draws - start) for start in range(0, draws, step)]


def _demand(values: Floats, draws: int) -> None:
    if not len(values) or draws < 1:
        raise ConfigError("nothing to draw from", got=f"{len(values)} users, {draws} draws", expected="at least 1 each")
