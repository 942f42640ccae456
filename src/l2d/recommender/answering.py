"""Requests in the user's words -> rows, filters and thoughts -> lists in the user's words; the search for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.decode import Global
from l2d.errors import ConfigError
from l2d.ranking import NOTHING, Decoder, Rankings, Requests

if TYPE_CHECKING:
    from l2d.recommender.asked import AskedRun
    from l2d.recommender.opening import OpenRun


@dataclass(frozen=True)
class Recommendation:
    """One recommended item."""

    item_id: str | int
    title: str
    score: float


@dataclass(frozen=True)
class RecommendRequest:
    """One request in the user's words.

    Args:
        history: ids or titles, oldest first.
        k: list length.
        exclude: ids or titles that must not be recommended.
        allow: the only ids or titles that may be; None for all.
        filter: what the items' metadata must be, as in `l2d.catalog.filters`; None for anything.
    """

    history: Sequence[str | int]
    k: int = 10
    exclude: Sequence[str | int] = field(default=())
    allow: Sequence[str | int] | None = None
    filter: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Found:
    """One item that a search of the catalogue found.

    Args:
        item_id: its id.
        title: its title.
        entries: memory entries of it, which is how popular it is.
        metadata: JSON values by column, without what is missing.
    """

    item_id: str | int
    title: str
    entries: int
    metadata: Mapping[str, Any]


def answer(
    run: AskedRun,
    requests: Sequence[RecommendRequest],
    decoder: Decoder,
    *,
    exclude_seen: bool,
    minimum_entries: int,
) -> list[list[Recommendation]]:
    """See `AskedRun.recommend_batch`."""
    if any(request.k < 1 for request in requests):
        raise ConfigError("k is too small", got=min(request.k for request in requests), expected="at least 1")
    whole = [run.rows(request.history) for request in requests]
    excluded = [run.rows(request.exclude) for request in requests]
    if exclude_seen:
        excluded = [np.union1d(a, b).astype(np.int32) for a, b in zip(excluded, whole, strict=True)]
    asked = Requests(
        [run.trimmed(rows) for rows in whole],
        exclude=excluded,
        allow=[_allowed(run, request) for request in requests],
        minimum_entries=minimum_entries,
    )
    k = max((request.k for request in requests), default=1)
    lists: list[list[Recommendation]] = [[] for _ in requests]
    for cold in (False, True):
        lines = [line for line, rows in enumerate(whole) if cold == (not len(rows))]
        if lines:
            chosen = run.cold if cold else decoder
            rankings = chosen.rank(_thought(run, asked.take(lines), chosen), k)
            for place, line in enumerate(lines):
                lists[line] = _listed(run, rankings, place, requests[line].k)
    return lists


def _thought(run: OpenRun, requests: Requests, decoder: Decoder) -> Requests:
    """Requests with thoughts, where a decoder needs them."""
    if not decoder.needs_thoughts:
        return requests
    return replace(
        requests, thoughts=run.answering.think([run.prompts.prompt(history) for history in requests.histories])
    )


def _allowed(run: OpenRun, request: RecommendRequest) -> NDArray[np.int32] | None:
    """The rows that a request may be answered with, by its list and by its filter; None for all."""
    listed = None if request.allow is None else run.rows(request.allow)
    if not request.filter:
        return listed
    fitting = run.catalog.where(request.filter)
    return fitting if listed is None else np.intersect1d(listed, fitting).astype(np.int32)


def find(run: OpenRun, query: str, k: int) -> list[Found]:
    """See `AskedRun.find_items`."""
    counts = run.item_vectors.counts if run.run.memory.is_dir() else run.evidence.popularity
    catalog = run.catalog
    return [
        Found(catalog.item_id(row), catalog.titles[row], int(counts[row]), catalog.described(row))
        for row in catalog.finder.find(query, counts, k)
    ]


def similar(run: OpenRun, item: str | int, k: int) -> list[Recommendation]:
    """See `AskedRun.similar_items`."""
    row = run.catalog.find(item)
    if not run.item_vectors.counts[row]:
        raise ConfigError(
            "nothing is known of this item",
            got=repr(run.catalog.titles[row]),
            expected="an item with memory entries",
            cure="choose one that occurs as a training target",
        )
    own = np.array([row], dtype=np.int32)
    requests = Requests([own], run.item_vectors.vectors[own], exclude=[own])
    return _listed(run, Global(run.item_vectors).rank(requests, k), 0, k)


def _listed(run: OpenRun, rankings: Rankings, line: int, k: int) -> list[Recommendation]:
    found = zip(rankings.rows[line, :k].tolist(), rankings.scores[line, :k].tolist(), strict=True)
    titles, item_id = run.catalog.titles, run.catalog.item_id
    return [Recommendation(item_id(row), titles[row], score) for row, score in found if row != NOTHING]
