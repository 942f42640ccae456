"""Lists for those of whom nothing is known: what is popular, an older entry of the memory counting less."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.decode.calibrate import CUT
from l2d.decode.prior import DAY
from l2d.errors import ConfigError
from l2d.interactions import UNKNOWN_TIME
from l2d.memory import Entries
from l2d.ranking import Rankings, Requests, Rows, top_k

HALF_LIVES: Sequence[float | None] = (None, 1460.0, 730.0, 365.0, 180.0, 90.0, 60.0, 45.0, 30.0, 14.0, 7.0)
"""Days that are tried; None: an entry never fades."""

USUAL_HALF_LIFE = 90.0
"""Days, where validation was not asked."""


@dataclass(frozen=True)
class Fading:
    """How fast popularity fades, as validation chose it.

    Args:
        half_life: days after which an entry counts half; None for never.
        requests: validation targets that it was chosen on.
        ndcg: NDCG@10 of the one list that everybody gets, by half-life in days (`never` for None).
    """

    half_life: float | None
    requests: int
    ndcg: Mapping[str, float]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Fading:
        """From JSON values.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        life = record["half_life"]
        if life is not None and not 0 < float(life) < float("inf"):
            raise ValueError(f"a half-life of {life}")
        ndcg = {str(name): float(value) for name, value in record["ndcg"].items()}
        return cls(None if life is None else float(life), int(record["requests"]), ndcg)


class Cold:
    """Ranks by entries of the memory, each weighed by 0.5 ** (age / half-life): the same list for every history.

    Scores are shares of the greatest weight, above 0 and at most 1; an item without entries is not listed. Ages count
    back from the newest entry. One that is later than the clock counts as of now, one whose time nobody recorded as of
    the oldest known time.

    Args:
        entries: the memory.
        items: catalogue size.
        half_life: days after which an entry counts half; None for never.
        now: what no entry is later than, unix seconds; None for the clock.
    """

    name = "cold"
    needs_thoughts = False

    def __init__(
        self, entries: Entries, items: int, half_life: float | None = USUAL_HALF_LIFE, *, now: float | None = None
    ) -> None:
        self.half_life = half_life
        weights = faded(entries, items, half_life, time.time() if now is None else now)
        scores = weights / weights.max(initial=np.finfo(np.float64).tiny)
        self._counts = np.bincount(entries.row, minlength=items)
        # A very old item's weight may round to zero as float32; it stays above those without entries.
        self._scores = np.maximum(scores, np.finfo(np.float32).tiny).astype(np.float32)

    def rank(self, requests: Requests, k: int) -> Rankings:
        """The most popular items that each request allows, the smaller row first among equals."""
        known = self._counts >= max(1, requests.minimum_entries)
        allowed = np.broadcast_to(known, (len(requests), len(known)))
        if requests.filtered and len(requests):
            allowed = allowed & np.stack([requests.candidates(line, len(known)) for line in range(len(requests))])
        return top_k(np.broadcast_to(self._scores, allowed.shape), k, allowed)


def faded(entries: Entries, items: int, half_life: float | None, now: float) -> NDArray[np.float64]:
    """Entries of each item, an entry counting half of one that is `half_life` days younger. Shape: (items,)."""
    counts = np.bincount(entries.row, minlength=items).astype(np.float64)
    known = entries.timestamp != UNKNOWN_TIME
    if half_life is None or not known.any():
        return counts
    times = np.minimum(entries.timestamp.astype(np.float64), now)
    newest, oldest = times[known].max(), times[known].min()
    days = (newest - np.where(known, times, oldest)) / DAY
    return np.bincount(entries.row, 0.5 ** (days / half_life), items).astype(np.float64, copy=False)


def fit_fading(
    entries: Entries, items: int, targets: Rows, *, half_lives: Sequence[float | None] = HALF_LIVES
) -> Fading:
    """Chooses the half-life by NDCG@10 of the one list that everybody gets; the earlier one wins a tie.

    Args:
        entries: the memory, without any validation target.
        items: catalogue size.
        targets: validation targets. Shape: (requests,).
        half_lives: what to try.

    Raises:
        ConfigError: no targets, or nothing to try.
    """
    if not len(targets) or not half_lives:
        raise ConfigError("nothing to fit on", got=f"{len(targets)} targets, {len(half_lives)} half-lives")
    times = np.bincount(targets, minlength=items)
    gain = 1 / np.log2(np.arange(CUT) + 2)
    now = float(entries.timestamp.max(initial=0))
    found: dict[str, float] = {}
    for life in half_lives:
        rows = Cold(entries, items, life, now=now).rank(Requests([np.empty(0, np.int32)]), CUT).rows[0]
        found[named(life)] = float((times[rows] * (rows >= 0)) @ gain / len(targets))
    best = max(half_lives, key=lambda life: found[named(life)])
    return Fading(best, len(targets), found)


def named(half_life: float | None) -> str:
    """A half-life in days as a key of JSON."""
    return "never" if half_life is None else f"{half_life:g}"
